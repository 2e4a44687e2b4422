"""Profiling once for any bounds: then a problem is a look-up, and at most a few probes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import qmc

from powerctl.fulcrum.beliefs import Beliefs
from powerctl.fulcrum.model_based import ModelBased, gains
from powerctl.fulcrum.problems import Concurrent, InferAlone, Problem, TrainAlone, TwoInferences
from powerctl.fulcrum.search import Search, Solution, best_of
from powerctl.modes import FloatArray, IntArray

_FIRST, _ROUND = 6, 2  # modes to start from, and of a round
_SCENARIOS, _DRAWS = 32, 32
_LEAST_ROOM, _MOST_ROOM = 1.05, 8.0  # of a cycle, times the work that it needs to hold
_MOST_WAIT = 2.0  # times the latency, up to where the next larger batch fits
_TIE = 1e-6
_GAIN_LIMIT = 1.0  # so that no scenario counts more than one that is not solved yet


@dataclass(frozen=True)
class ModelBasedCampaign(ModelBased):
    """Measures what is expected to gain on average over the bounds that might be asked for.

    A campaign starts from modes that are spread evenly. Then, round by round, it draws scenarios,
    which are problems with bounds that the beliefs say can just be met, and measures the modes
    that together promise most gain, summed over them. A problem is then looked up in what is
    known, and the default's search goes on from there.
    """

    name: str = "campaign"

    def solve(self, search: Search) -> Solution:
        """Look up, and probe within the cap; with nothing known, run a campaign first."""
        if search.known is None:
            self.campaign(search)
            return search.solution(f"look-up among {len(search.profiled)} profiled modes")
        return super().solve(search)

    def campaign(self, search: Search) -> None:
        """Profile to the cap, for any bounds of the problem."""
        for mode in _spread(search, min(_FIRST, search.left)):
            search.profile(mode)
        number = 0
        while search.left > 0 and not search.measured.all():
            for mode in self._round(search, number):
                search.profile(mode)
            number += 1

    def _round(self, search: Search, number: int) -> list[int]:
        """The modes that together promise most, each given those before it."""
        beliefs = Beliefs.of(search, self.references, self.expected)
        fresh = np.flatnonzero(~search.measured.all(axis=1)).astype(np.int64)
        gain = np.array(list(_scenario_gains(search, beliefs, fresh, number)))
        gain = gain.reshape(-1, len(fresh))
        # Where no scenario gains, what is least sure.
        unsure = _TIE * beliefs.std[:, fresh].sum(axis=(0, 2))
        chosen: list[int] = []
        for _ in range(min(_ROUND, search.left, len(fresh))):
            promise = gain.sum(axis=0) + unsure
            promise[chosen] = -np.inf
            chosen.append(int(promise.argmax()))
            gain = np.maximum(gain - gain[:, chosen[-1:]], 0.0)
        return [int(mode) for mode in fresh[chosen]]


def _spread(search: Search, n: int) -> list[int]:
    """Modes spread evenly over the space, the middle first."""
    top = np.array(search.candidates.space.shape) - 1
    places = np.vstack([np.full(4, 0.5), qmc.Halton(4, seed=0).random(8 * n)])
    modes = [search.candidates.nearest(np.rint(place * top)) for place in places]
    return list(dict.fromkeys(modes))[:n]


def _scenario_gains(
    search: Search, beliefs: Beliefs, modes: IntArray, number: int
) -> Iterator[FloatArray]:
    """Gains of modes in each scenario of a round, shape (draws, len(modes)) each."""
    jobs = search.problem.jobs
    known = search.measured_modes
    for scenario in scenarios(search.problem, beliefs, number):
        columns = np.array([jobs.index(job) for job in scenario.jobs], dtype=np.int64)
        if not scenario.choices:
            continue
        found = scenario.evaluate(
            search.time_s[np.ix_(known, columns)], search.power_w[np.ix_(known, columns)]
        )
        best = best_of(found)
        best_loss = None if best is None else float(found.loss[best])
        gain = gains(scenario, beliefs.of_jobs(columns), modes, best_loss, n=_DRAWS)
        yield np.minimum(gain, _GAIN_LIMIT)


def scenarios(problem: Problem, beliefs: Beliefs, number: int) -> list[Problem]:
    """Problems of the kind of one, with bounds that might be asked for.

    Each has a power limit between the least and the most that a choice needs, and is believed to
    be met by the fastest mode within it: a cycle has room for the choice there and for some more,
    and its latency bound leaves time to wait.

    Parameters
    ----------
    problem : Problem
        Of which all but the bounds is kept.
    beliefs : Beliefs
        Of its jobs.
    number : int
        Each gives others.
    """
    time_s, power_w = np.exp(beliefs.mean)
    even = qmc.Sobol(4, seed=number).random(_SCENARIOS)
    made = []
    for place, power, room, wait in even.tolist():
        choice = list(problem.choices[int(place * len(problem.choices))])
        highest_w = power_w[:, choice].max(axis=1)
        limit_w = float(highest_w.min() + power * np.ptp(highest_w))
        within = np.flatnonzero(highest_w <= limit_w)
        anchor = within[time_s[within][:, choice].sum(axis=1).argmin()]
        slot_s, infer_s = time_s[anchor, choice[0]], time_s[anchor, choice[-1]]
        work_s = infer_s + (slot_s if len(choice) > 1 else 0.0)
        cycle_s = work_s * _LEAST_ROOM * _MOST_ROOM**room
        guarded = isinstance(problem, Concurrent | TwoInferences) and problem.guard
        waiting_s = infer_s + slot_s if guarded else infer_s
        latency_s = (cycle_s + waiting_s) * _LEAST_ROOM * _MOST_WAIT**wait
        made.append(_bounded(problem, choice, limit_w, float(cycle_s), float(latency_s)))
    return made


def _bounded(
    problem: Problem, choice: list[int], limit_w: float, cycle_s: float, latency_s: float
) -> Problem:
    """A problem with other bounds; training alone has power only."""
    if isinstance(problem, TrainAlone):
        return replace(problem, power_limit_w=limit_w)
    assert isinstance(problem, InferAlone | Concurrent | TwoInferences)
    sizes = tuple(j.batch_size for j in problem.jobs if j.role == "infer" and j.batch_size)
    return replace(
        problem,
        power_limit_w=limit_w,
        rate_hz=(problem.jobs[choice[-1]].batch_size or 1) / cycle_s,
        latency_s=latency_s,
        batch_sizes=sizes,
    )
