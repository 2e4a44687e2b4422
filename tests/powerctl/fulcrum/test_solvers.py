"""What holds of every solver."""

from __future__ import annotations

import pytest

from powerctl.fulcrum.als import ALS
from powerctl.fulcrum.baselines import Maxn, Optimal, RandomModes
from powerctl.fulcrum.gmd import GMD
from powerctl.fulcrum.search import Search, best_of

SOLVERS = {
    "gmd": (GMD(), 12),
    "als": (ALS(first_modes=5, per_round=3), 14),
    "random": (RandomModes(20), 12),
    "maxn": (Maxn(), 1),
    "optimal": (Optimal(), 256),
}


@pytest.fixture(params=list(SOLVERS))
def solved(request, replay, problem):
    solver, cap = SOLVERS[request.param]
    asked = []

    def measure(mode, job):
        asked.append((mode, job))
        return replay.measure(mode, job)

    search = Search(problem, replay.candidates, measure, cap)
    return solver.solve(search), search, asked


def test_a_solver_never_returns_a_mode_it_did_not_measure(solved):
    solution, _, asked = solved
    assert solution.mode is None or solution.mode in {mode for mode, _ in asked}
    assert not solution.predicted


def test_a_solver_never_exceeds_the_cap_and_counts_what_it_applied(solved):
    solution, search, asked = solved
    assert len({mode for mode, _ in asked}) == solution.modes_profiled <= search.cap
    assert len(asked) == len(set(asked)) == len(solution.measured)


def test_a_solver_never_breaks_a_bound(solved):
    solution, search, _ = solved
    if solution.mode is None:
        return
    problem = search.problem
    assert solution.figures["power_w"] <= problem.power_limit_w
    assert solution.figures.get("latency_s", 0) <= getattr(problem, "latency_s", 0)
    mode = search.candidates.index(solution.mode)
    assert search.evaluate([mode]).feasible.any()


def test_a_solver_measures_nothing_where_nothing_can_be_chosen(solved):
    solution, search, asked = solved
    assert search.problem.choices or (not asked and not solution.solved)


def test_brute_force_finds_the_best_there_is(replay, problem):
    search = Search(problem, replay.candidates, replay.measure, len(replay.candidates))
    solution = Optimal().solve(search)
    evaluation = problem.evaluate(*replay.columns(problem.jobs))
    best = best_of(evaluation)
    assert solution.solved == (best is not None)
    if best is not None:
        assert solution.value == pytest.approx(problem.value(evaluation.loss[best]))
