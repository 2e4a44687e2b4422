from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerctl.fulcrum.model_based import ModelBased
from powerctl.fulcrum.problems import Concurrent, InferAlone, TrainAlone
from powerctl.fulcrum.search import Search, best_of
from powerctl.fulcrum.solvers import find_solver
from powerctl.powertrain.reference import known_references
from tests.powerctl.fulcrum.conftest import SIZES

pytestmark = pytest.mark.studies

# Of other networks than those of the replay.
REFERENCES = tuple(known_references(["orin-agx-lstm-train"]))


def solve(problem, replay, cap=10, references=(), known=None):
    search = Search(problem, replay.candidates, replay.measure, cap, known)
    return ModelBased(references=references).solve(search), search


def loss_of(problem, search, replay):
    """Shortfall of the best that was measured against brute force."""
    evaluation = problem.evaluate(*replay.columns(problem.jobs))
    return problem.shortfall(
        float(search.evaluate([search.best()[0]]).loss[0, search.best()[1]]),
        float(evaluation.loss[best_of(evaluation)]),
    )


def with_few_feasible(problem, replay, n):
    """The problem with the power limit at which `n` modes are feasible."""
    free = replace(problem, power_limit_w=np.inf)
    found = free.evaluate(*replay.columns(free.jobs))
    needed_w = np.where(found.feasible, found.power_w, np.inf).min(axis=1)
    return replace(problem, power_limit_w=float(np.sort(needed_w)[n - 1]))


def test_it_is_the_default_of_the_catalogue_and_has_no_campaign():
    solver = find_solver("default").make(0, ())
    assert isinstance(solver, ModelBased) and solver.name == "default"


def test_its_answer_was_measured_keeps_the_bounds_and_the_cap(replay, problem):
    solution, search = solve(problem, replay, cap=8)
    assert solution.modes_profiled == len(search.profiled) <= 8
    assert not solution.predicted
    if solution.mode is None:
        return
    mode = search.candidates.index(solution.mode)
    assert mode in search.profiled
    time_s, power_w = replay.columns(problem.jobs)
    assert problem.evaluate(time_s[mode], power_w[mode]).feasible.any()
    assert solution.figures["power_w"] <= problem.power_limit_w


@pytest.mark.parametrize("references", [(), REFERENCES], ids=["no reference", "reference"])
@pytest.mark.parametrize(
    ("problem", "limit"),
    [
        (TrainAlone(25.0), 0.05),
        (InferAlone(25.0, 60.0, 0.2, SIZES), 0.05),
        (Concurrent(25.0, 60.0, 1.5, SIZES), 0.1),
    ],
    ids=["train", "infer", "concurrent"],
)
def test_ten_modes_come_near_the_optimum(replay, problem, limit, references):
    solution, search = solve(problem, replay, references=references)
    assert solution.solved
    assert loss_of(problem, search, replay) <= limit


@pytest.mark.parametrize(
    "problem",
    [
        TrainAlone(1.0),
        InferAlone(1.0, 60.0, 0.2, SIZES),
        Concurrent(1.0, 60.0, 1.0, SIZES),
    ],
    ids=["train", "infer", "concurrent"],
)
def test_it_finds_one_of_three_feasible_modes(replay, problem):
    solution, _ = solve(with_few_feasible(problem, replay, 3), replay, cap=12)
    assert solution.solved


def test_it_stops_when_no_other_mode_can_gain(replay):
    solution, search = solve(TrainAlone(60.0), replay, cap=60)
    assert solution.modes_profiled < 30
    assert loss_of(TrainAlone(60.0), search, replay) < 0.01


def test_another_budget_starts_from_what_is_known(replay):
    _, first = solve(TrainAlone(30.0), replay, cap=12)
    problem = TrainAlone(28.0)
    solution, search = solve(problem, replay, cap=3, known=first.record)
    assert solution.solved and solution.modes_profiled <= 3
    assert loss_of(problem, search, replay) < 0.05


def test_another_rate_is_looked_up_without_profiling(replay):
    _, first = solve(Concurrent(30.0, 60.0, 1.5, SIZES), replay, cap=12)
    solution, _ = solve(Concurrent(30.0, 40.0, 1.5, SIZES), replay, cap=0, known=first.record)
    assert solution.solved and solution.modes_profiled == 0


def test_it_is_deterministic(replay):
    problem = Concurrent(22.0, 60.0, 1.5, SIZES)
    (one, _), (other, _) = (solve(problem, replay, cap=6) for _ in range(2))
    assert one == other


def test_nothing_is_measured_twice_when_every_mode_is_known(replay):
    everything = Search(TrainAlone(25.0), replay.candidates, replay.measure, 0, replay.record)
    solution = ModelBased(references=()).solve(everything)
    assert solution.solved and solution.modes_profiled == 0


def test_an_answer_that_the_other_modes_do_not_support_is_measured_again(replay):
    """A mode that was not in force the first time looks best; the second time tells."""
    problem, seen = TrainAlone(25.0), []
    time_s, _ = replay.columns(problem.jobs)
    slow = replay.candidates.mode(int(np.argsort(time_s[:, 0])[-20]))

    def measure(mode, job):
        seen.append(mode)
        true_s, true_w = replay.measure(mode, job)
        is_off = mode == slow and seen.count(mode) == 1
        return (true_s / 40, true_w) if is_off else (true_s, true_w)

    search = Search(problem, replay.candidates, measure, 12)
    for mode in (slow, *map(replay.candidates.mode, (3, 80, 150, 222))):
        search.profile(replay.candidates.index(mode))
    solution = ModelBased(references=()).solve(search)
    assert seen.count(slow) == 2
    assert solution.mode != slow
    assert loss_of(problem, search, replay) < 0.05
    assert len({m.mode for m in solution.measured}) == len(solution.measured) <= 12
