from __future__ import annotations

import pytest

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.baselines import Maxn, NeuralNetwork, Optimal, RandomModes
from powerctl.fulcrum.problems import Concurrent, TrainAlone
from powerctl.fulcrum.search import Search
from powerctl.fulcrum.solvers import find_solver
from tests.powerctl.fulcrum.conftest import SIZES


def search_of(replay, problem, cap=256):
    return Search(problem, replay.candidates, replay.measure, cap)


def test_random_modes_are_those_of_the_seed(replay):
    searches = [search_of(replay, TrainAlone(30.0)) for _ in range(3)]
    for search, seed in zip(searches, (1, 1, 2), strict=True):
        RandomModes(20, seed).solve(search)
    assert searches[0].profiled == searches[1].profiled != searches[2].profiled
    assert len(set(searches[0].profiled)) == 20


def test_maxn_is_no_answer_where_it_breaks_the_budget(replay):
    solution = Maxn().solve(search_of(replay, TrainAlone(60.0)))
    assert solution.mode == replay.candidates.space.maximum and solution.modes_profiled == 1
    assert not Maxn().solve(search_of(replay, TrainAlone(20.0))).solved


def test_brute_force_says_when_the_cap_forbids_it(replay):
    with pytest.raises(InvalidInput, match="needs all 256 modes; the cap is 10"):
        Optimal().solve(search_of(replay, TrainAlone(30.0), 10))


@pytest.mark.parametrize("problem", [TrainAlone(28.0), Concurrent(30.0, 60.0, 1.5, SIZES)])
def test_the_network_answers_from_predictions_and_says_so(replay, problem):
    solution = NeuralNetwork(60).solve(search_of(replay, problem))
    assert solution.predicted and "not measured" in solution.reason
    assert solution.modes_profiled == 60
    assert solution.figures["power_w"] <= problem.power_limit_w  # as predicted
    mode = replay.candidates.index(solution.mode)
    _, power_w = replay.columns(problem.jobs)
    assert power_w[mode].max() <= 1.1 * problem.power_limit_w


@pytest.mark.parametrize(
    ("name", "modes", "for_a_pair"),
    [
        ("gmd", 15, 15),
        ("als", 50, 145),
        ("als-50", 50, 50),
        ("random-50", 50, 50),
        ("random-250", 250, 250),
        ("nn-250", 250, 250),
        ("maxn", 1, 1),
    ],
)
def test_solvers_have_names_and_their_own_numbers_of_modes(name, modes, for_a_pair):
    entry = find_solver(name)
    assert entry.make(0, ()).name == name
    assert entry.cap(TrainAlone(30.0), 15) == modes
    assert entry.cap(Concurrent(30.0, 60.0, 1.5, SIZES), 15) == for_a_pair


def test_an_unknown_solver_is_told_with_those_there_are():
    with pytest.raises(UnknownName, match="unknown solver 'gdm'.*random-N"):
        find_solver("gdm")
