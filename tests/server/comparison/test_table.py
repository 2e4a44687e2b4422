from __future__ import annotations

import math

import pytest

from powerctl.errors import UnknownName
from wattfed.server.comparison.measures import Course, RunMeasures
from wattfed.server.comparison.table import Table, chosen_baseline
from wattfed.server.run.contender import PolicyPair


def run(strategy, power, per_round, seed, energy_j, time_s=100.0, target=0.9):
    reached = energy_j is not None
    return RunMeasures(
        strategy=strategy,
        power=power,
        per_round=per_round,
        seed=seed,
        level=target,
        rounds_to_target=20 if reached else None,
        time_to_target_s=time_s if reached else None,
        energy_to_target_j=energy_j,
        energy_training_to_target_j=energy_j,
        energy_always_on_to_target_j=energy_j,
        final=0.9,
        best=0.9,
        rounds=20,
        energy_j=energy_j or 0.0,
        energy_training_j=energy_j or 0.0,
        energy_always_on_j=energy_j or 0.0,
        train_energy_j=0.0,
        transfer_energy_j=0.0,
        wait_energy_j=0.0,
        overhead_energy_j=0.0,
        supply_energy_j=0.0,
        wasted_energy_j=0.0,
        virtual_time_s=time_s,
        clients_per_round=float(per_round),
        jain_fairness=0.7,
        budget_violations=1,
        power_violations=1,
        latency_violations=0,
        late=0,
        course=Course((), (), (), {}, None),
    )


RUNS = [
    run("random", "maxn", 3, 0, 50.0),
    run("random", "maxn", 3, 1, 70.0),
    run("random", "maxn", 10, 0, 100.0),
    run("random", "maxn", 10, 1, 120.0),
    run("pace", "joint", 3, 0, 20.0),
    run("pace", "joint", 3, 1, None),  # cheap, but does not always get there
    run("pace", "joint", 10, 0, 25.0),
    run("pace", "joint", 10, 1, 30.0),
]
BASELINE = PolicyPair("random", "maxn")


def test_ratios_are_to_the_baseline_with_as_many_clients():
    lines = {line.contender: line for line in Table(RUNS, 0.9, BASELINE).at_equal_numbers()}
    assert len(lines) == 4
    pace = lines["pace", "joint", 10]
    assert pace.less_energy.mean == pytest.approx(4.0)  # 100/25 and 120/30
    assert pace.energy_j.mean == pytest.approx(27.5)
    assert lines["random", "maxn", 10].less_energy.mean == 1.0
    assert lines["pace", "joint", 3].reached == 1
    assert pace.budget_violations == 2


def test_the_best_number_reaches_the_target_first_and_then_takes_the_least_energy():
    lines = Table(RUNS, 0.9, BASELINE).at_best_numbers()
    assert [line.contender.per_round for line in lines] == [3, 10]
    assert lines[1].less_energy.mean == pytest.approx(math.sqrt((50 / 25) * (70 / 30)))


def test_the_baseline_is_random_at_maxn_or_what_was_asked_for():
    assert chosen_baseline("", RUNS) == BASELINE
    assert chosen_baseline("pace", RUNS) == PolicyPair("pace", "joint")
    assert chosen_baseline("", RUNS[4:]) == PolicyPair("pace", "joint")
    with pytest.raises(UnknownName, match="baseline 'oort:maxn'"):
        chosen_baseline("oort:maxn", RUNS)


def test_a_baseline_that_did_not_run_at_that_number_has_no_ratio():
    lines = Table([*RUNS[2:5]], 0.9, BASELINE).at_equal_numbers()
    assert math.isnan(lines[0].less_energy.mean)
