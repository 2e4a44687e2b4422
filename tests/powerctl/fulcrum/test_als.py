from __future__ import annotations

import numpy as np
import pytest

from powerctl.fulcrum.als import ALS
from powerctl.fulcrum.problems import Concurrent, TrainAlone
from powerctl.fulcrum.search import Search, best_of
from powerctl.pareto import evenly_spread
from tests.powerctl.fulcrum.conftest import SIZES


def test_one_campaign_answers_every_budget_without_profiling(replay):
    campaign = Search(TrainAlone(np.inf), replay.candidates, replay.measure, 30)
    ALS(first_modes=8, per_round=8).campaign(campaign)
    assert len(campaign.profiled) == 30
    losses = []
    for limit_w in range(15, 50, 2):
        problem = TrainAlone(float(limit_w))
        search = Search(problem, replay.candidates, replay.measure, 0, campaign.record)
        solution = ALS().solve(search)
        assert solution.modes_profiled == 0
        evaluation = problem.evaluate(*replay.columns(problem.jobs))
        best = best_of(evaluation)
        if best is not None and solution.solved:
            losses.append(problem.shortfall(evaluation.loss[search.best()], evaluation.loss[best]))
    assert len(losses) > 15 and np.mean(losses) < 0.15


def test_the_points_it_adds_are_nearer_to_the_front_than_random_ones(replay):
    search = Search(TrainAlone(np.inf), replay.candidates, replay.measure, 24)
    ALS(first_modes=8, per_round=8).campaign(search)
    time_s, power_w = (column[:, 0] for column in replay.columns(search.problem.jobs))

    def beaten_by(mode):
        return np.sum((time_s < time_s[mode]) & (power_w < power_w[mode]))

    first, added = search.profiled[:8], search.profiled[8:]
    assert np.median([beaten_by(m) for m in added]) < 0.5 * np.median([beaten_by(m) for m in first])


def test_beside_inference_every_batch_is_known_in_a_profiled_mode(replay):
    problem = Concurrent(np.inf, 60.0, np.inf, SIZES)
    search = Search(problem, replay.candidates, replay.measure, 20)
    ALS(first_modes=6, per_round=2).campaign(search)
    assert search.measured[search.profiled].all() and len(search.profiled) == 20


def test_it_stops_when_the_predicted_fronts_are_profiled(replay):
    search = Search(TrainAlone(np.inf), replay.candidates, replay.measure, 256)
    ALS().campaign(search)
    assert len(search.profiled) < 256


def test_the_same_seed_profiles_the_same_modes(replay):
    profiled = []
    for seed in (3, 3, 4):
        search = Search(TrainAlone(30.0), replay.candidates, replay.measure, 16)
        ALS(seed, first_modes=6, per_round=5).solve(search)
        profiled.append(search.profiled)
    assert profiled[0] == profiled[1] != profiled[2]


@pytest.mark.parametrize("n", [1, 3, 10])
def test_points_are_spread_along_power(n):
    power_w = np.array([10.0, 10.1, 10.2, 20.0, 30.0])
    found = evenly_spread(np.array([0, 1, 2, 3, 4]), power_w, n)
    assert len(found) <= n
    if n == 3:
        assert found.tolist() == [0, 3, 4]
