"""A pool of a whole fleet offers what each of its clients, a pool of its own, would offer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from wattfed.client.fleet import load_fleet
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.client.worker.pool import Pool
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

FLEET = """
[[group]]
board = "orin-agx"
count = 5
power_w = [9, 25, 25, 50, 3]
link_mbit_s = [10, 100, 100, 1000, 100]

[[group]]
board = "orin-nano"
count = 4
round_energy_j = [900, 300, 900, 1]
energy_budget_j = 1000

[[group]]
board = "xavier-nx"
count = 2

[[group]]
board = "orin-nx"
count = 6
power_w = 20

[group.battery]
capacity_j = 20000
start = { low = 0, high = 1, seed = 1 }
charge_w = 30
charge_hours = [1, 3]

[group.inference]
rate_hz = 30
latency_s = [1, 1, 1, 0.1, 1, 1]
shape = "traffic"

[group.availability]
mean_on_s = 5000
mean_off_s = 3000
foreseen = false
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "mixed.toml").write_text(FLEET)
    return RunConfig(fleet=str(tmp_path / "mixed.toml"), local_epochs=2)


def made_by_clients(config, states=None, clock_s=0.0):
    fleet = load_fleet(config.fleet)
    states = states or {}
    return Offers.of(
        [
            LocalClient(config, one, len(fleet), states.get(one.client, ClientState())).offer(
                clock_s
            )
            for one in fleet
        ]
    )


def assert_same(pool, clients):
    for item in dataclasses.fields(Offers):
        np.testing.assert_array_equal(getattr(pool, item.name), getattr(clients, item.name))


def test_at_first_nobody_has_to_be_asked(config):
    assert_same(Pool.of_fleet(config, load_fleet(config.fleet)).offers(), made_by_clients(config))


def test_who_has_trained_offers_what_it_has_learned(config):
    fleet = load_fleet(config.fleet)
    pool = Pool.of_fleet(config, fleet)
    states = {}
    for client in (1, 3, 5, 9):
        one = LocalClient(config, fleet[client], len(fleet), pool.states_of([client])[0])
        minibatches = one.offer().minibatches
        report = one.train(one.task.model(), RoundAssignment(client, minibatches), server_round=1)
        assert report.minibatches
        pool.keep(client, one.state)
        states[client] = one.state
        assert pool.states_of([client])[0] == one.state
    assert any(state.predictor != (0.0, 0.0, 0.0) for state in states.values())
    assert_same(pool.offers(), made_by_clients(config, states))


def test_what_goes_on_around_clients_is_in_the_offers_of_both(config):
    config = dataclasses.replace(config, label_privacy=0.5)
    pool, seen = Pool.of_fleet(config, load_fleet(config.fleet)), []
    for clock_s in (0.0, 100.0, 5000.0, 9000.5, 40_000.0):
        offers = pool.offers(clock_s)
        assert_same(offers, made_by_clients(config, clock_s=clock_s))
        seen.append(tuple(offers.able[11:].tolist()))
    assert len(set(seen)) > 2 and not any(able[3] for able in seen)


def test_of_a_hundred_thousand_clients_none_is_opened(config, tmp_path):
    (tmp_path / "large.toml").write_text(
        '[[group]]\nboard = "orin-agx"\ncount = 60000\npower_w = 20\n'
        '[[group]]\nboard = "orin-nano"\ncount = 40000\n'
    )
    large = dataclasses.replace(config, task="noop", fleet=str(tmp_path / "large.toml"))
    offers = Pool.of_fleet(large, load_fleet(large.fleet)).offers()
    assert len(offers) == 100_000 and offers.able.all()
    assert len(np.unique(offers.time_s[:, 0] / offers.minibatches)) <= 4
