"""A comparison in numbers: each contender's means over seeds, and how it stands to a baseline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from powerctl.errors import UnknownName
from powerctl.statistics import Estimate, estimate, ratio_by_seed
from wattfed.server.comparison.measures import RunMeasures
from wattfed.server.run.contender import JOINT, Contender, PolicyPair


@dataclass(frozen=True)
class Line:
    """One contender at one level of the target metric, over seeds.

    `reached` of `seeds` runs reached the level; `rounds`, `time_s` and `energy_j` are over those.
    `less_time` and `less_energy` are how many times as much the baseline took, paired by seed.
    The other estimates are over whole runs, and the violations are sums.
    """

    contender: Contender
    level: float
    seeds: int
    reached: int
    rounds: Estimate
    time_s: Estimate
    energy_j: Estimate
    less_time: Estimate
    less_energy: Estimate
    final: Estimate
    clients: Estimate
    fairness: Estimate
    budget_violations: int
    power_violations: int
    latency_violations: int


class Table:
    """All runs of a comparison at one level of the target metric.

    Parameters
    ----------
    measures : sequence of RunMeasures
        The runs, at one level or several; the level picks from them.
    level : float
        A value of the target metric.
    baseline : PolicyPair
        What ratios are to.
    """

    def __init__(self, measures: Sequence[RunMeasures], level: float, baseline: PolicyPair) -> None:
        self.level = level
        self.baseline = baseline
        self._runs: dict[Contender, list[RunMeasures]] = {}
        for run in measures:
            if run.level == level:
                contender = Contender(run.strategy, run.power, run.per_round)
                self._runs.setdefault(contender, []).append(run)

    def at_equal_numbers(self) -> list[Line]:
        """A line per contender, beside the baseline with as many clients a round."""
        return [
            self._line(contender, Contender(*self.baseline, contender.per_round))
            for contender in sorted(self._runs, key=lambda contender: contender.per_round)
        ]

    def at_best_numbers(self) -> list[Line]:
        """A line per policy at the number of clients of least energy, beside the baseline's."""
        best: dict[PolicyPair, Contender] = {}
        for contender in self._runs:
            pair = contender.pair
            best[pair] = min(best.get(pair, contender), contender, key=self._rank)
        return [self._line(contender, best.get(self.baseline)) for contender in best.values()]

    def _rank(self, contender: Contender) -> tuple[float, float]:
        """The most seeds that reach the target come first, then the least energy."""
        reached = list(self._to_target(contender, "energy_to_target_j").values())
        return -len(reached), estimate(reached).mean if reached else 0.0

    def _to_target(self, contender: Contender | None, field: str) -> dict[int, float]:
        """A measure by seed, of the runs that reached the target."""
        runs = self._runs.get(contender, []) if contender else []
        return {run.seed: getattr(run, field) for run in runs if run.rounds_to_target is not None}

    def _line(self, contender: Contender, baseline: Contender | None) -> Line:
        runs = self._runs[contender]
        rounds = self._to_target(contender, "rounds_to_target")
        time_s = self._to_target(contender, "time_to_target_s")
        energy_j = self._to_target(contender, "energy_to_target_j")
        return Line(
            contender=contender,
            level=self.level,
            seeds=len(runs),
            reached=len(rounds),
            rounds=estimate(list(rounds.values())),
            time_s=estimate(list(time_s.values())),
            energy_j=estimate(list(energy_j.values())),
            less_time=ratio_by_seed(time_s, self._to_target(baseline, "time_to_target_s")),
            less_energy=ratio_by_seed(energy_j, self._to_target(baseline, "energy_to_target_j")),
            final=estimate([run.final for run in runs if run.final is not None]),
            clients=estimate([run.clients_per_round for run in runs]),
            fairness=estimate([run.jain_fairness for run in runs]),
            budget_violations=sum(run.budget_violations for run in runs),
            power_violations=sum(run.power_violations for run in runs),
            latency_violations=sum(run.latency_violations for run in runs),
        )


def policies(measures: Sequence[RunMeasures]) -> list[PolicyPair]:
    """The policies that were compared, in the order of the runs."""
    return list(dict.fromkeys(PolicyPair(run.strategy, run.power) for run in measures))


def chosen_baseline(text: str, measures: Sequence[RunMeasures]) -> PolicyPair:
    """The baseline of ``STRATEGY:POWER``; else random at MAXN, or the first where it did not run.

    Power may be left out of those that choose modes themselves.

    Raises
    ------
    UnknownName
        If it was not compared.
    """
    known = policies(measures)
    if not text:
        usual = PolicyPair("random", "maxn")
        return usual if usual in known else known[0]
    named = {":".join(pair): pair for pair in known}
    short = {pair.strategy: pair for pair in known if pair.power == JOINT}
    wanted = re.sub(r"\s*:\s*", ":", text.strip())
    if wanted not in named | short:
        raise UnknownName("baseline", text, named)
    return (named | short)[wanted]
