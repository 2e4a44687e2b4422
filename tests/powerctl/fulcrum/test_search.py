from __future__ import annotations

import math

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.fulcrum.problems import Concurrent, Job, TrainAlone
from powerctl.fulcrum.search import Candidates, Search

SPACE = load_board("orin-agx").space.thinned(3)


def cost(mode, job):
    return (1e9 / mode.gpu_hz, 10 + mode.gpu_hz / 1e8 + (job.batch_size or 0) / 10)


@pytest.fixture
def candidates():
    return Candidates(SPACE)


def searching(problem, candidates, cap=3, **more):
    calls = []

    def measure(mode, job):
        calls.append((mode, job))
        return cost(mode, job)

    return Search(problem, candidates, measure, cap, **more), calls


def test_a_mode_and_job_are_measured_once(candidates):
    search, calls = searching(Concurrent(50.0, 30.0, 2.0, (1, 4)), candidates)
    assert search.profile(5, [0, 1]) and search.profile(5) and search.profile(5)
    mode = candidates.mode(5)
    assert calls == [(mode, Job("train")), (mode, Job("infer", 1)), (mode, Job("infer", 4))]
    assert search.order == [(5, 0), (5, 1), (5, 2)] and search.profiled == [5]
    for column, job in enumerate(search.problem.jobs):
        assert (search.time_s[5, column], search.power_w[5, column]) == cost(mode, job)
    assert np.isnan(np.delete(search.time_s, 5, axis=0)).all()


def test_the_cap_is_of_distinct_modes(candidates):
    search, calls = searching(Concurrent(50.0, 30.0, 2.0, (1,)), candidates, cap=2)
    assert search.profile(1, [0]) and search.profile(2, [0])
    assert search.left == 0 and not search.profile(3)
    assert search.profile(1, [1])  # a mode that counts already
    assert len(calls) == 3


def test_the_best_is_measured_and_feasible_and_ties_go_to_less_power():
    space = SPACE.subspace(cores=(SPACE.cores[0],))
    search, _ = searching(TrainAlone(18.0), Candidates(space), cap=9)
    assert search.best() is None
    powers = {0: 17.0, 1: 16.0, 2: 19.0}
    search.measure = lambda mode, job: (0.5, powers[[*space].index(mode)])
    for mode in powers:
        search.profile(mode)
    assert search.best() == (1, 0)
    solution = search.solution("enough")
    assert (solution.mode, solution.value) == (space.mode(1), pytest.approx(0.5))
    assert solution.figures["power_w"] == 16.0 and solution.reason == "enough"
    assert solution.modes_profiled == 3 and len(solution.measured) == 3


def test_without_a_feasible_mode_there_is_no_answer(candidates):
    search, _ = searching(TrainAlone(1.0), candidates)
    search.profile(0)
    solution = search.solution("over")
    assert not solution.solved and math.isnan(solution.value) and solution.modes_profiled == 1


def test_what_was_measured_before_does_not_count_and_is_not_measured_again(candidates):
    first, _ = searching(Concurrent(50.0, 30.0, 2.0, (1, 4)), candidates)
    for mode in (0, 7, 40):
        first.profile(mode)
    second, calls = searching(TrainAlone(30.0), candidates, cap=1, known=first.record)
    assert second.measured_modes.tolist() == [0, 7, 40] and second.best() is not None
    assert second.profile(7) and not calls and second.left == 1
    assert second.profile(8) and second.left == 0
    third, calls = searching(
        Concurrent(50.0, 30.0, 2.0, (4,)), candidates, cap=0, known=second.record
    )
    assert third.measured.all(axis=1)[[0, 7, 40]].all() and third.measured[8].tolist() == [1, 0]
    assert third.solution("look-up").modes_profiled == 0


def test_a_record_of_other_candidates_is_taken_over_where_they_meet(candidates):
    first, _ = searching(TrainAlone(50.0), candidates)
    first.profile(3), first.profile(80)
    fewer = Candidates.of(candidates.modes.take([80, 2, 79]), "orin-agx")
    second, _ = searching(TrainAlone(50.0), fewer, known=first.record)
    (known,) = second.measured_modes
    assert fewer.mode(known) == candidates.mode(80)


def test_progress_is_told_after_each_mode(candidates):
    seen = []
    search, _ = searching(
        TrainAlone(50.0), candidates, progress=lambda search: seen.append(len(search.profiled))
    )
    search.profile(4), search.profile(4), search.profile(9)
    assert seen == [1, 2]


def test_a_measurement_that_is_no_number_is_refused(candidates):
    search = Search(TrainAlone(50.0), candidates, lambda mode, job: (math.nan, 20.0), 3)
    with pytest.raises(InvalidInput, match="measuring train in .* gave nan s"):
        search.profile(0)


def test_candidates_may_be_some_of_a_space(candidates):
    picks = [0, 1, 5, 33]
    some = Candidates.of(candidates.modes.take(picks), "orin-agx")
    assert len(some) == 4 and some.space.name == "orin-agx"
    for index in range(4):
        assert some.index(some.mode(index)) == index
        assert some.nearest(some.steps[index]) == index
    with pytest.raises(ModeNotInSpace, match="not among those that may be chosen"):
        some.index(next(mode for mode in some.space if mode not in map(some.mode, range(4))))
    with pytest.raises(InvalidInput, match="no mode may be chosen"):
        Candidates(SPACE, np.zeros(len(SPACE), dtype=bool))
