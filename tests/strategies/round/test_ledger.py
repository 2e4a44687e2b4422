from __future__ import annotations

import pytest

from tests.strategies.offers_of import recorded, report
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.round.ledger import Ledger


def test_a_round_lasts_until_the_last_upload_and_waiting_costs_idle_power():
    ledger = Ledger()
    asked = [RoundAssignment(0, 10, 20.0), RoundAssignment(1, 10, 20.0)]
    entry = recorded(ledger, 1, asked, [report(0), report(1, time_s=15.0, energy_j=300.0)])
    assert entry.round_time_s == 15.5
    assert entry.train_energy_j == 500
    assert entry.wait_energy_j == pytest.approx(2.0 * 5.0)
    assert entry.transfer_energy_j == pytest.approx(2.0 * (0.5 + 0.5))
    assert entry.energy_j == pytest.approx(512) and entry.budget_misses == 0
    assert (ledger.clock_s, ledger.energy_j) == (15.5, entry.energy_j)


def test_a_client_that_stays_away_holds_the_round_up_to_its_deadline():
    asked = [RoundAssignment(i, 10, 20.0) for i in range(2)]
    entry = recorded(Ledger(), 1, asked, [report(0)])
    assert (entry.failed, entry.round_time_s) == (1, 20.0)
    without = recorded(Ledger(), 1, [RoundAssignment(i, 10) for i in range(2)], [report(0)])
    assert without.round_time_s == 10.5


def test_broken_limits_lateness_and_partial_work_are_counted():
    reports = [
        report(0, peak_power_w=25.1),
        report(1, energy_j=501.0),
        report(2, time_s=20.0),
        report(3, minibatches=4, stopped="energy"),
        report(5, inference_p99_s=0.12, inference_budget_s=0.1),
        report(4, minibatches=0, planned_minibatches=0, time_s=0.0, energy_j=0.0, decline="empty"),
    ]
    entry = recorded(
        Ledger(),
        1,
        [RoundAssignment(i, 10, 20.0) for i in range(6)],
        reports,
        rejected=reports[3:4],
    )
    assert (entry.power_violations, entry.budget_violations, entry.budget_misses) == (1, 1, 2)
    assert (entry.late, entry.partial, entry.declined, entry.rejected) == (1, 1, 1, 1)
    assert entry.reported == 5 and entry.latency_violations == 1


def test_what_is_lost_is_charged_as_wasted_and_holds_the_round_up():
    reports = [
        report(0),
        report(1, minibatches=4, energy_j=80.0, time_s=4.0, lost="crashed"),
        report(2, energy_j=200.0, time_s=30.0, lost="silent", inference_energy_j=7.0),
    ]
    entry = recorded(Ledger(), 1, [RoundAssignment(i, 10, 20.0) for i in range(3)], reports)
    assert (entry.reported, entry.failed, entry.late, entry.round_time_s) == (1, 2, 0, 20.0)
    assert entry.train_energy_j == pytest.approx(reports[0].energy_j + 280)
    assert entry.wasted_energy_j == pytest.approx(280 + 2 * 2.0 * 0.5)
    assert entry.inference_energy_j == 7.0
    without = recorded(Ledger(), 1, [RoundAssignment(i, 10) for i in range(3)], reports)
    assert without.round_time_s == 30.5  # until the connection of the last one broke


def test_prediction_errors_compare_the_work_really_done():
    half = report(0, minibatches=5, time_s=5.5, energy_j=100.0)
    entry = recorded(Ledger(), 1, [RoundAssignment(0, 10)], [half])
    assert entry.time_error_pct == pytest.approx(100 * 0.5 / 5.5)
    assert entry.energy_error_pct == 0


def test_a_round_of_nobody_takes_nothing():
    entry = recorded(Ledger(), 1, [], [])
    assert entry.round_time_s == entry.energy_j == 0 and entry.clients == ()


def test_who_is_not_in_a_round_takes_idle_power_that_only_one_accounting_counts():
    reports = [report(0, carrier_w=4.0, supply_efficiency=0.8), report(1, time_s=20.0)]
    entry = recorded(Ledger(), 1, [], reports, others_w=30.0)
    assert entry.others_energy_j == 30.0 * entry.round_time_s
    assert entry.accounted_j("training") == entry.train_energy_j + entry.transfer_energy_j
    assert entry.accounted_j("charged") == entry.energy_j > entry.accounted_j("training")
    assert entry.accounted_j("always-on") == entry.energy_j + entry.others_energy_j
