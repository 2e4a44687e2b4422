from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from powerctl.devices.opening import open_device
from powerctl.errors import InvalidInput, UnknownName
from wattfed.client.fleet import load_fleet, profile_from_node_config


def fleet(tmp_path, text):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    return str(path)


def test_the_default_fleet_is_twenty_jetsons_of_four_boards():
    clients = load_fleet("twenty-jetsons")
    assert [client.client for client in clients] == list(range(20))
    assert len({client.device for client in clients}) == 4
    assert len({client.limits for client in clients}) > 10
    assert all(math.isfinite(client.limits.energy_budget_j) for client in clients)


def test_a_group_gives_one_number_for_all_or_one_for_each(tmp_path):
    text = '[[group]]\nboard = "nano"\ncount = 2\npower_w = [5, 8]\nlink_mbit_s = 10\n'
    one, two = load_fleet(fleet(tmp_path, text))
    assert (one.limits.power_w, two.limits.power_w) == (5, 8)
    assert one.limits.energy_budget_j == math.inf
    assert (one.unit, two.unit) == (0, 1)


def test_what_all_clients_have_alike_is_in_memory_once(tmp_path):
    group = '[[group]]\nboard = "nano"\ncount = 500\nlink_mbit_s = 10\n'
    other = group.replace("nano", "orin-nx")
    alike = load_fleet(fleet(tmp_path, group + other))
    for column in (alike.environment.inference.shape, alike.profiles.link_mbit_s):
        assert len(column) == 1000 and column.strides[0] == 0
    (tmp_path / "mixed").mkdir()
    mixed = load_fleet(fleet(tmp_path / "mixed", group + other.replace("10", "20")))
    assert mixed.profiles.link_mbit_s[[0, 499, 500, 999]].tolist() == [10, 10, 20, 20]
    np.testing.assert_array_equal(mixed.profiles.power_w, alike.profiles.power_w)


def test_a_group_names_its_release(tmp_path):
    text = '[[group]]\nboard = "orin-nano"\n[[group]]\nboard = "orin-nano"\nl4t = "36.4"\n'
    old, new = load_fleet(fleet(tmp_path, text))
    assert (old.device, new.device) == ("twin:orin-nano", "twin:orin-nano@36.4")
    gpu_hz = [open_device(client.device).space.maximum.gpu_hz for client in (old, new)]
    assert gpu_hz == [624_750_000, 1_020_000_000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[group]]\nboard = "orin-nano"\nl4t = 36.4', 'in quotes, such as "36.4", got 36.4'),
        ('[[group]]\nboard = "orin-nano"\nl4t = "30.1"', "no axes for L4T 30.1"),
        ("", "no clients"),
        ("[[group", "not readable as TOML"),
        ('[[group]]\nboard = "orin-agx"\npower_w = -5', "group 1: power_w must be positive"),
        ('[[group]]\nboard = "orin-agx"\nenergy_budget_j = -1', "energy_budget_j must be positive"),
        ('[[group]]\nboard = "pi-5"', "unknown board 'pi-5'"),
        ('[[group]]\nboard = "nano"\n[[group]]\nboard = "nano"\ncount = 0', "group 2: count"),
        ('[[group]]\nboard = "nano"\ncount = 3\npower_w = [1, 2]', "lists 2 values for 3"),
        ('[[group]]\nboard = "nano"\npower_w = "much"', "power_w must be numbers"),
        ('[[group]]\nboard = "nano"\nwatts = 3', "unknown watts"),
        ('[[group]]\nboard = "nano"\nlink_mbit_s = 0', "link_mbit_s must be positive"),
        ("[[group]]\ncount = 3", "no board"),
        ('[[group]]\nboard = "nano"\nbattery = {start = 1}', "needs capacity_j"),
        ('[[group]]\nboard = "nano"\nbattery = {capacity_j = 9, start = 2}', "0 to 1"),
        ('[[group]]\nboard = "nano"\nbattery = {capacity_j = 9, charge_hours = [1]}', "hours are"),
        ('[[group]]\nboard = "nano"\ninference = {rate_hz = 3}', "rate_hz and latency_s"),
        (
            '[[group]]\nboard = "nano"\n[group.inference]\nrate_hz = 3\nlatency_s = 1\n'
            'shape = "odd"',
            "unknown shape 'odd': known: evening, flat",
        ),
        (
            '[[group]]\nboard = "nano"\n[group.inference]\nrate_hz = 3\nlatency_s = 1\n'
            'workload = "lstm-train"',
            "no inference workload",
        ),
        ('[[group]]\nboard = "nano"\navailability = {mean_on_s = 3}', "belong together"),
        ('[[group]]\nboard = "nano"\navailability = {foreseen = "no"}', "true or false"),
        ('[[group]]\nboard = "nano"\navailability = {trace = "no.json"}', "no.json: no such file"),
        ('[[group]]\nboard = "nano"\nfailures = {silent_share = -1}', "silent_share must be at"),
        ('[[group]]\nboard = "nano"\nlink_mbit_s = {median = 3}', "a distribution is"),
        ('start_hour = "noon"\n[[group]]\nboard = "nano"', "start_hour must be a whole number"),
    ],
)
def test_a_defect_is_named_with_file_and_group(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message) as error:
        load_fleet(fleet(tmp_path, text))
    assert "fleet.toml" in str(error.value)


def test_a_fleet_that_is_not_there_is_named():
    with pytest.raises(UnknownName, match="twenty-jetsons"):
        load_fleet("thirty-jetsons")
    with pytest.raises(InvalidInput, match="no such file"):
        load_fleet("nowhere/fleet.toml")


def test_a_deployed_client_is_described_by_its_node_config():
    node = {"partition-id": 3, "device": "twin:nano", "power-w": 8, "round-energy-j": 50.5}
    profile = profile_from_node_config(node)
    assert (profile.client, profile.device, profile.unit) == (3, "twin:nano", 3)
    assert profile.limits.power_w == 8 and profile.limits.round_energy_j == 50.5
    assert profile.limits.energy_budget_j == math.inf


def test_a_fleet_is_read_by_index_slice_and_in_turn():
    clients = load_fleet("hundred-jetsons")
    assert len(clients) == 100 and clients[-1].client == 99
    assert [one.client for one in clients[97:]] == [97, 98, 99]
    with pytest.raises(IndexError):
        clients[100]


def test_a_distribution_is_drawn_once_by_its_seed(tmp_path):
    links = "link_mbit_s = {median = 50, sigma = 0.5, seed = 3}"
    text = f'[[group]]\nboard = "nano"\ncount = 2000\n{links}'
    links = load_fleet(fleet(tmp_path, text)).profiles.link_mbit_s
    assert np.median(links) == pytest.approx(50, rel=0.05)
    assert np.log(links).std() == pytest.approx(0.5, rel=0.05)
    (tmp_path / "again").mkdir()  # what another file says is not kept
    again = load_fleet(fleet(tmp_path / "again", text))
    assert np.array_equal(links, again.profiles.link_mbit_s)


def test_a_file_that_has_changed_is_another_fleet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, count in ((".", 2), (".", 3), ("b", 4)):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        Path("fleet.toml").write_text(f'[[group]]\nboard = "nano"\ncount = {count}\n')
        assert len(load_fleet("fleet.toml")) == count
    assert load_fleet("fleet.toml") is load_fleet("fleet.toml")


def test_only_what_a_file_says_goes_on_around_its_clients():
    assert load_fleet("hundred-jetsons").environment.is_quiet
    city = load_fleet("city")
    around, everyone = city.environment, np.arange(len(city))
    assert not around.is_quiet and around.start_s == 8 * 3600
    assert np.isfinite(around.batteries.capacity_j).sum() == 70
    assert (around.inference.rate_at_hz(everyone, around.start_s) > 0).sum() == 160
    assert 0 < around.availability.at(everyone, 0, around.start_s).here.sum() < len(city)


def test_a_battery_is_drawn_on_by_the_idle_board_unless_the_file_says_otherwise(tmp_path):
    text = '[[group]]\nboard = "nano"\n[group.battery]\ncapacity_j = 9000\n'
    assert 0.5 < load_fleet(fleet(tmp_path, text)).environment.batteries.draw_w[0] < 3
    own = load_fleet(fleet(tmp_path, text + "draw_w = 7"))
    assert own.environment.batteries.draw_w[0] == 7
