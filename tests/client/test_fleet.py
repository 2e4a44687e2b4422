from __future__ import annotations

import math

import pytest

from client.fleet import load_fleet, profile_from_node_config
from powerctl.errors import InvalidInput, UnknownName


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
    assert one.transfer_s(1e6) == pytest.approx(1.6)
    assert (one.unit, two.unit) == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
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
