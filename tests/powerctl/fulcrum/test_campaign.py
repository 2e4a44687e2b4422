from __future__ import annotations

import numpy as np
import pytest

from powerctl.fulcrum.baselines import RandomModes
from powerctl.fulcrum.campaign import ModelBasedCampaign
from powerctl.fulcrum.problems import Concurrent, InferAlone, TrainAlone, TwoInferences
from powerctl.fulcrum.search import Search, best_of
from powerctl.fulcrum.solvers import find_solver
from tests.powerctl.fulcrum.conftest import SIZES

pytestmark = pytest.mark.studies

UNLIMITED = {
    "train": TrainAlone(np.inf),
    "infer": InferAlone(np.inf, 60.0, np.inf, SIZES),
    "concurrent": Concurrent(np.inf, 60.0, np.inf, SIZES),
    "two inferences": TwoInferences(np.inf, 60.0, np.inf, SIZES, (4, 16)),
}


def campaign(problem, replay, cap):
    search = Search(problem, replay.candidates, replay.measure, cap)
    ModelBasedCampaign(references=()).campaign(search)
    return search


def losses(problems, known, replay, probes=0):
    """Shortfall of each solvable problem, 1 if it stays unsolved; what was profiled for it."""
    found = []
    for problem in problems:
        evaluation = problem.evaluate(*replay.columns(problem.jobs))
        best = best_of(evaluation)
        if best is None:
            continue
        search = Search(problem, replay.candidates, replay.measure, probes, known)
        solution = ModelBasedCampaign(references=()).solve(search)
        assert solution.modes_profiled <= probes
        loss = -np.log(solution.value) if problem.maximised else np.log(solution.value)
        gap = problem.shortfall(float(loss), float(evaluation.loss[best]))
        found.append(gap if solution.solved else 1.0)
    return np.array(found)


@pytest.fixture(scope="module")
def pair(replay):
    return campaign(UNLIMITED["concurrent"], replay, 24)


QUESTIONS = [
    Concurrent(float(limit_w), rate_hz, latency_s, SIZES)
    for limit_w in (18, 22, 26, 30, 36)
    for rate_hz in (30.0, 80.0)
    for latency_s in (0.8, 1.6)
]


def test_the_catalogue_has_it_with_two_probes_and_with_none():
    assert find_solver("campaign").profiles_once
    assert find_solver("campaign").probes == 2
    assert find_solver("campaign-0").probes == 0
    for name in ("campaign", "campaign-0"):
        assert find_solver(name).cap(UNLIMITED["concurrent"], 15) == 50


@pytest.mark.parametrize("kind", list(UNLIMITED))
def test_a_campaign_spends_its_cap_and_measures_every_job(replay, kind):
    search = campaign(UNLIMITED[kind], replay, 13)
    assert len(search.profiled) == 13
    assert search.measured[search.profiled].all()


def test_one_campaign_answers_many_bounds_by_look_up(replay, pair):
    by_random = Search(UNLIMITED["concurrent"], replay.candidates, replay.measure, 24)
    RandomModes(24).solve(by_random)
    found = losses(QUESTIONS, pair.record, replay)
    assert len(found) >= 12 and found.mean() < 0.1
    assert found.mean() < losses(QUESTIONS, by_random.record, replay).mean()


def test_probes_lose_less_than_look_up_alone(replay):
    short = campaign(UNLIMITED["concurrent"], replay, 6)
    looked_up = losses(QUESTIONS, short.record, replay)
    probed = losses(QUESTIONS, short.record, replay, probes=2)
    assert np.all(probed <= looked_up + 1e-9) and probed.mean() < looked_up.mean()


def test_with_nothing_known_it_runs_the_campaign_first(replay):
    search = Search(TrainAlone(25.0), replay.candidates, replay.measure, 16)
    solution = ModelBasedCampaign(references=()).solve(search)
    assert solution.solved and solution.modes_profiled == 16


def test_a_campaign_of_a_small_board_ends_with_its_modes(replay):
    search = campaign(UNLIMITED["train"], replay, 5)
    inside = type(search.candidates).of(search.candidates.modes.take(np.arange(9)), "orin-agx")
    small = Search(UNLIMITED["train"], inside, replay.measure, 50)
    ModelBasedCampaign(references=()).campaign(small)
    assert len(small.profiled) == 9
