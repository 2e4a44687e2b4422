"""When rounds close, and what becomes of updates that come later."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord

from powerctl.errors import InvalidInput, UnknownName
from tests.strategies.offers_of import report
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.in_flight import InFlightUpdates, replies_to_aggregate
from wattfed.strategies.round.ledger import Ledger
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.updates import ClientUpdate, GlobalModel
from wattfed.strategies.round_policy import RoundPolicy


def flights(policy, server_round, times_s, known=None):
    """Clients 0, 1, ... that take so long, transfer of half a second included."""
    known = known or InFlightUpdates(policy)
    for client, time_s in times_s.items():
        known.start(server_round, report(client, time_s=time_s - 0.5), f"update {client}")
    return known


def arrived(closed):
    return [(flight.report.client, flight.report.staleness) for flight in closed.arrived]


def test_without_more_than_asked_for_a_round_waits_for_the_last():
    closed = flights(RoundPolicy(), 1, {0: 5.0, 1: 9.0}).close(1, 2, 0.0)
    assert closed.duration_s == 9.0 and arrived(closed) == [(0, 0), (1, 0)]
    assert [(r.client, waited_s) for r, waited_s in closed.waits] == [(0, 4.0), (1, 0.0)]


def test_of_those_asked_beyond_the_wanted_the_first_count_and_the_others_are_waste():
    policy = RoundPolicy(over_commit=1.5)
    assert policy.to_ask(2, 0) == 3
    on_the_way = flights(policy, 1, {0: 9.0, 1: 5.0, 2: 6.0})
    closed = on_the_way.close(1, 3, 0.0)
    assert closed.duration_s == 6.0 and arrived(closed) == [(1, 0), (2, 0)]
    assert [(r.client, r.used) for r in closed.dropped] == [(0, False)]
    assert on_the_way.clients == [0]
    assert arrived(flights(policy, 2, {3: 2.0}, on_the_way).close(2, 1, 0.0)) == [(3, 0)]
    closed = flights(policy, 3, {4: 4.0}, on_the_way).close(3, 1, 0.0)
    assert arrived(closed) == [(4, 0)] and on_the_way.clients == []


def test_a_late_update_counts_in_the_round_in_which_it_comes_unless_it_is_too_old():
    policy = RoundPolicy(over_commit=1.5, late="refl", max_staleness=1)
    on_the_way = flights(policy, 1, {0: 7.0, 1: 5.0, 2: 30.0})
    assert arrived(on_the_way.close(1, 2, 0.0)) == [(1, 0)]
    closed = flights(policy, 2, {3: 3.0}, on_the_way).close(2, 1, 0.0)
    assert arrived(closed) == [(0, 1), (3, 0)]
    closed = flights(policy, 3, {4: 25.0}, on_the_way).close(3, 1, 0.0)
    assert arrived(closed) == [(4, 0)]
    assert [(r.client, r.used, r.staleness) for r in closed.dropped] == [(2, False, 2)]


def test_a_buffer_closes_with_so_many_whoever_they_are():
    policy = RoundPolicy(buffer=2, late="fedbuff")
    on_the_way = flights(policy, 1, {0: 1.0, 1: 2.0, 2: 5.0, 3: 7.0})
    closed = on_the_way.close(1, 4, 0.0)
    assert closed.duration_s == 2.0 and arrived(closed) == [(0, 0), (1, 0)]
    assert policy.to_ask(4, len(on_the_way.clients)) == 2
    closed = flights(policy, 2, {4: 4.0, 5: 9.0}, on_the_way).close(2, 2, 0.0)
    assert closed.duration_s == 4.0 and arrived(closed) == [(2, 1), (4, 0)]


def test_silence_is_waited_for_only_where_the_others_do_not_suffice():
    assert flights(RoundPolicy(), 1, {0: 5.0}).close(1, 2, 20.0).duration_s == 20.0
    more = RoundPolicy(over_commit=2.0)
    assert flights(more, 1, {0: 5.0}).close(1, 2, 20.0).duration_s == 5.0


def test_the_ledger_counts_work_that_was_dropped_as_wasted():
    asked = [RoundAssignment(client, 10, 20.0) for client in (0, 1)]
    reports = [report(0, energy_j=100.0), report(1, energy_j=300.0, time_s=15.0)]
    policy = RoundPolicy(over_commit=2.0)
    on_the_way = flights(policy, 1, {})
    for one in reports:
        on_the_way.start(1, one, "an update")
    entry = Ledger().record(1, asked, reports, (), on_the_way.close(1, 2, 0.0))
    assert entry.round_time_s == 10.5 and entry.dropped == 1
    assert entry.train_energy_j == 400.0 and entry.wait_energy_j == 0.0
    assert entry.wasted_energy_j == pytest.approx(300.0 + 2.0 * 0.5)


def base(value):
    return GlobalModel.of(ArrayRecord([np.full(2, value, dtype=np.float32)]))


def reply(value):
    return NumpyReply({"0": np.full(2, value, dtype=np.float32)}, {"num-examples": 10})


def test_a_late_update_brings_its_change_to_the_present_model_at_less_weight():
    policy = RoundPolicy(over_commit=2.0, late="fedbuff")
    on_the_way = InFlightUpdates(policy)
    on_the_way.start(1, report(0, time_s=19.5), ClientUpdate(reply(3.0), base(1.0)))
    on_the_way.start(1, report(1, time_s=4.5), ClientUpdate(reply(2.0), base(1.0)))
    on_the_way.close(1, 2, 0.0)
    on_the_way.start(2, report(2, time_s=29.5), ClientUpdate(reply(6.0), base(5.0)))
    closed = on_the_way.close(2, 1, 0.0)
    late, fresh = replies_to_aggregate(closed.arrived, base(5.0), policy.late)
    assert late.content["arrays"]["0"].numpy().tolist() == [7.0, 7.0]
    assert late.content["metrics"]["num-examples"] == pytest.approx(10 / np.sqrt(2))
    assert fresh.content["metrics"]["num-examples"] == 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"over_commit": 0.9}, InvalidInput, "over-commit must be at least 1"),
        ({"buffer": -1}, InvalidInput, "buffer cannot be negative"),
        ({"late": "never"}, UnknownName, "rule for late updates 'never'"),
        ({"buffer": 5}, InvalidInput, "set late to one of refl"),
    ],
)
def test_wrong_rules_are_named(options, error, message):
    with pytest.raises(error, match=message):
        RoundPolicy(**options)
