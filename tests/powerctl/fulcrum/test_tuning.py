"""Tuning: bounds kept, nothing unmeasured chosen, near the best there is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.fulcrum.tuning import TuningGoal, tune_mode
from powerctl.measurement import Measurement
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import load_workload

NANO = load_board("orin-nano")
MODES = NANO.space.thinned(4).arrays
TRUTH = load_workload("resnet18-train").signature


def device(measured=None):
    cost = minibatch_cost(NANO.hardware, TRUTH, *MODES, 16)
    facts = {
        MODES.mode(i): Measurement(MODES.mode(i), float(t), float(p))
        for i, (t, p) in enumerate(zip(cost.time_s, cost.power_w, strict=True))
    }

    def measure(mode):
        if measured is not None:
            measured.append(mode)
        return facts[mode]

    return facts, measure


def tuned(goal, **more):
    rough = dataclasses.replace(TRUTH, flop_per_sample=1.4 * TRUTH.flop_per_sample)
    predictor = GaussianPredictor("orin-nano", references=(), expected=rough)
    measured = []
    facts, measure = device(measured)
    found = tune_mode(predictor, MODES, NANO.space.maximum, measure, goal, **more)
    return found, facts, measured


@pytest.mark.parametrize(
    "goal", [TuningGoal(), TuningGoal("energy-delay"), TuningGoal(slowdown=0.3)]
)
def test_the_choice_is_measured_keeps_the_bounds_and_is_near_the_best(goal):
    found, facts, measured = tuned(goal, profile=8, attempts=10)
    assert [fact.mode for fact in found.measured] == measured
    assert len(set(measured)) == len(measured) <= 18
    assert facts[found.chosen.mode] == found.chosen
    assert found.slowdown <= goal.slowdown + 1e-12
    times, powers = (
        np.array([getattr(f, n) for f in facts.values()]) for n in ("time_s", "power_w")
    )
    best = goal.best(times, powers, found.baseline.time_s)
    value = float(goal.value(np.array(found.chosen.time_s), np.array(found.chosen.power_w)))
    assert value <= 1.03 * float(goal.value(times, powers)[best])


def test_a_power_limit_is_kept():
    limit_w = 12.0
    found, _, _ = tuned(TuningGoal(slowdown=5.0, power_limit_w=limit_w), profile=8, attempts=10)
    assert found.chosen.power_w <= limit_w


def test_with_nothing_better_the_baseline_stays():
    found, _, _ = tuned(TuningGoal(slowdown=0.0), profile=4, attempts=3)
    assert found.chosen.time_s <= found.baseline.time_s
    assert found.energy_saved >= 0


def test_no_improvement_is_expected_of_what_surely_breaks_a_bound():
    surely = Prediction(
        *(np.array(v) for v in ([1.0, 2.0, 1.0], [9.0, 1.0, 30.0])), *2 * [np.full(3, 0.01)]
    )
    gain = TuningGoal(power_limit_w=20).improvement(surely, baseline_s=1.0, best=10.0)
    assert gain[0] == pytest.approx(0.1, rel=0.1)
    assert gain[1:] == pytest.approx([0, 0], abs=1e-12)


def test_impossible_goals_are_refused():
    with pytest.raises(InvalidInput, match="energy-delay"):
        TuningGoal("joy")
    with pytest.raises(InvalidInput, match="slow-down"):
        TuningGoal(slowdown=-0.1)
