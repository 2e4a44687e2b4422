"""What a real round takes beside minibatches and transfers, from the fleet file to the books."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import idle_power_w
from powerctl.errors import InvalidInput, UnknownName
from wattfed.client.fleet import load_fleet
from wattfed.client.fleet.environment import Environment
from wattfed.client.fleet.fleet import Fleet, Profiles
from wattfed.client.fleet.round_costs import real_rounds
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

CONFIG = RunConfig(task="noop", local_epochs=1, strategy="all", rounds=2, per_round=2)


@pytest.fixture
def fleet_of(tmp_path):
    def make(text, board="orin-nano", top=""):
        path = tmp_path / f"fleet-{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(f'{top}\n[[group]]\nboard = "{board}"\ncount = 2\n{text}')
        return str(path)

    return make


def costs_of(name):
    return load_fleet(name).round_costs


def client(name, state=None, **config):
    fleet = load_fleet(name)
    config = replace(CONFIG, fleet=name, **config)
    return LocalClient(config, fleet[0], len(fleet), state or ClientState())


def train(one, minibatches=5, server_round=1, power="slack", **more):
    asked = RoundAssignment(0, minibatches, power=power)
    return one.train(one.task.model(), asked, server_round, **more)


def test_a_round_is_real_unless_ideal_is_asked_for_in_the_file_or_by_name(fleet_of):
    name, ideal = fleet_of(""), fleet_of("", top="ideal = true")
    assert [load_fleet(one).rounds for one in (name, ideal)] == ["real rounds", "ideal rounds"]
    assert load_fleet(f"{name}(ideal=true)").is_ideal
    assert not load_fleet(f"{ideal}(ideal=false)").is_ideal
    assert load_fleet("hundred-jetsons(ideal=true)").is_ideal
    assert costs_of(name).fixed_s[0] == 2.6 and not costs_of(ideal).fixed_s.any()
    least = load_board("orin-nano").space.minimum
    least_w = idle_power_w(load_board("orin-nano").hardware, *least.values)
    assert costs_of(ideal).idle_w[0] == pytest.approx(least_w)
    assert costs_of(name).idle_w[0] > least_w
    with pytest.raises(InvalidInput, match="'maybe' is no bool"):
        load_fleet(f"{name}(ideal=maybe)")
    with pytest.raises(UnknownName, match="parameter of city 'real'"):
        load_fleet("city(real=true)")


def test_every_default_says_where_it_is_from():
    for name, values in real_rounds().items():
        for one in values.values() if name == "link" else [values]:
            assert len(one["source"]) > 10, name


def test_a_client_without_an_agent_is_cold_in_every_round_and_one_with_it_once(fleet_of):
    warm, cold = client(fleet_of("")), client(fleet_of("round = { agent = false }"))
    reports = [[train(one, server_round=n) for n in (1, 2)] for one in (warm, cold)]
    assert [[report.warm_up_s > 30 for report in pair] for pair in reports] == [
        [True, False],
        [True, True],
    ]
    assert [pair[1].overhead_s for pair in reports] == [2.6, 9.3]
    first, second = reports[0]
    assert first.time_s - second.time_s == pytest.approx(38, rel=0.05)
    assert first.energy_j > second.energy_j + 100


def test_offers_foretell_what_the_board_knows_and_plans_reckon_with_it(fleet_of):
    one = client(fleet_of(""))
    fresh = one.offer()
    assert (fresh.overhead_s, fresh.warm_up_s) == (2.6, 38.0)
    report = train(one)
    assert report.planned_time_s == pytest.approx(report.time_s, rel=0.1)
    assert report.planned_energy_j == pytest.approx(report.energy_j, rel=0.2)
    assert one.offer().warm_up_s == 0
    late = client(fleet_of(""))
    declined = late.train(late.task.model(), RoundAssignment(0, 5, deadline_s=30.0), 1)
    assert not declined.minibatches and "s are left" in declined.decline


def test_sending_takes_what_the_link_does(fleet_of):
    speed = "link_mbit_s = 5\n"
    kinds = ("ethernet", "wifi", "lte")
    offers = [client(fleet_of(f'{speed}round = {{ link = "{k}" }}')).offer() for k in kinds]
    ethernet_j, wifi_j, lte_j = (offer.radio_j for offer in offers)
    transfer_s = offers[0].transfer_s
    assert ethernet_j == 0 < wifi_j < lte_j
    sending_w, receiving_w = 1.28804 + 5 * 0.43839, 1.28804 + 5 * 0.05197  # Huang et al., 2012
    assert lte_j == pytest.approx(transfer_s / 2 * (sending_w + receiving_w) + 2 * 12.3)
    own = client(fleet_of(f'{speed}round = {{ link = "lte", send_w = 9, tail_j = 0 }}')).offer()
    assert own.radio_j == pytest.approx(transfer_s / 2 * (9 + receiving_w))


def test_the_books_have_all_of_it_and_ideal_ones_have_not(fleet_of, tmp_path):
    costs = "{ fixed_s = 4, cold_s = 0, idle_w = 6, send_w = 3, receive_w = 1, tail_j = 10"
    name = fleet_of(f"link_mbit_s = 10\nround = {costs}, carrier_w = 2, supply_efficiency = 0.8 }}")
    result = simulate(CONFIG, fleet=name, out_dir=str(tmp_path), workers=1)
    entry, reports = result.ledger.entries[1], result.ledger.reports_of(2)
    transfer_s = reports[0].transfer_s
    assert entry.round_time_s == max(r.time_s for r in reports) + transfer_s + 4
    assert entry.overhead_energy_j == 2 * 4 * 6
    assert entry.transfer_energy_j == pytest.approx(2 * (transfer_s * (6 + 2) + 20))
    module_j = entry.train_energy_j + entry.transfer_energy_j + entry.overhead_energy_j
    module_j += entry.wait_energy_j
    socket_j = (module_j + 2 * 2 * entry.round_time_s) / 0.8
    assert entry.energy_j == pytest.approx(socket_j)
    ideal = simulate(CONFIG, fleet=f"{name}(ideal=true)", out_dir=str(tmp_path), name="ideal")
    for entry in ideal.ledger.entries:
        assert not (entry.overhead_energy_j or entry.supply_energy_j)
        assert entry.energy_j == (
            entry.train_energy_j + entry.transfer_energy_j + entry.wait_energy_j
        )
    assert ideal.charged.endswith("ideal rounds)") and result.charged.endswith("real rounds)")


HOT = "round = { cold_s = 0, ambient_c = 50, k_per_w = 3, tau_s = 20, throttle_c = 90 }"


def test_a_board_that_gets_too_hot_throttles_and_its_guard_steps_down(fleet_of):
    cool, hot = client(fleet_of("round = { cold_s = 0 }")), client(fleet_of(HOT))
    pair = [train(one, 200, power="maxn") for one in (cool, hot)]
    assert pair[1].time_s > 1.5 * pair[0].time_s
    assert pair[1].energy_j / pair[1].time_s < 0.8 * pair[0].energy_j / pair[0].time_s
    assert 89 < hot.state.celsius < 92 and math.isnan(cool.state.celsius)
    guarded = train(client(fleet_of(HOT)), 200)
    assert guarded.guard_steps and guarded.guard_cause == "temperature"


def test_it_is_as_hot_as_the_last_round_left_it_and_cools_meanwhile(fleet_of):
    soon, later = client(fleet_of(HOT)), client(fleet_of(HOT))
    for one in (soon, later):
        train(one, 200, power="maxn")
    again_s = train(soon, 20, power="maxn", server_round=2, clock_s=soon.state.celsius_s).time_s
    rested_s = train(later, 20, power="maxn", server_round=2, clock_s=1e4).time_s
    assert again_s > 1.15 * rested_s


def test_a_fleet_that_is_made_in_code_has_real_rounds_of_its_boards():
    device = np.array(["twin:orin-agx", "twin:nano", "twin:nano"])
    fleet = Fleet(device, Profiles.read({}, 3), Environment.read({}, 3, None))
    assert fleet.round_costs.cold_s.tolist() == [5.5, 15, 15] and fleet.rounds == "real rounds"
    assert not replace(fleet, is_ideal=True).round_costs.cold_s.any()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('{ link = "pigeon" }', "group 1: unknown link 'pigeon': known: ethernet, lte, wifi"),
        ("{ agent = 1 }", "agent is true or false, got 1"),
        ("{ fixed_s = -1 }", "fixed_s must be at least 0"),
        ("{ supply_efficiency = 1.2 }", "supply_efficiency is a share"),
        ("{ warmth = 3 }", "unknown warmth"),
    ],
)
def test_a_defect_is_named(fleet_of, table, message):
    with pytest.raises((InvalidInput, UnknownName), match=message):
        load_fleet(fleet_of(f"round = {table}"))
