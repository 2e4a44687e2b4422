"""Which policy of a comparison took least, by how much, and how sure that is: in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from powerctl.statistics import Estimate, ratio_by_seed
from wattfed.server.comparison.measures import RunMeasures
from wattfed.server.comparison.table import Line, Table
from wattfed.server.run.contender import Contender
from wattfed.server.run.judging import times_less
from wattfed.strategies.target import Target


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to.

    Attributes
    ----------
    sentence : str
        All of it: until which level, what both came to, how much less, and how sure that is.
    ours, other : str
        Who is compared; empty where nothing is claimed.
    less_energy, less_time : Estimate or None
        How many times as much the other one took; None where nothing is claimed.
    """

    sentence: str
    ours: str = ""
    other: str = ""
    less_energy: Estimate | None = None
    less_time: Estimate | None = None

    def __str__(self) -> str:
        return self.sentence

    @property
    def headline(self) -> str:
        """The answer in a few words, which promise no more than the interval does."""
        energy = self.less_energy
        if energy is None:
            return self.sentence.partition(":")[0]
        if energy.low <= 1 <= energy.high:
            return f"No sure difference in energy between {self.ours} and {self.other}"
        seed = " in one seed" if energy.n == 1 else ""
        return f"{self.ours} used {times_less(energy.mean, 'energy')} than {self.other}{seed}"

    @property
    def figures(self) -> list[tuple[str, Estimate]]:
        """Energy and time as factors above 1: so many times less, or more, than the other took."""
        found = []
        for what, less in (("energy", self.less_energy), ("time", self.less_time)):
            if less is not None and less.mean >= 1:
                found.append((f"less {what}", less))
            elif less is not None:
                more = Estimate(1 / less.mean, 1 / less.high, 1 / less.low, less.n)
                found.append((f"more {what}", more))
        return found


class Standing(NamedTuple):
    """A level of the target at which runs are compared, in words, and what each took until it."""

    level: float
    words: str
    measures: list[RunMeasures]


def standings(measures: Sequence[RunMeasures]) -> list[Standing]:
    """The levels at which there is something to compare, the easiest first.

    Of those that were asked for, the ones that a run reached. Where none did, the best value that
    all runs hold which have learned something; and where none has, the last that was asked for.

    Parameters
    ----------
    measures : sequence of RunMeasures
        Every run at every level that was asked for.
    """
    target = measures[0].target
    asked = target.easiest_first({run.level for run in measures})
    by_level = {level: [run for run in measures if run.level == level] for level in asked}
    found = [
        Standing(level, f"until {target.name} {_short(target, level)}", runs)
        for level, runs in by_level.items()
        if any(run.rounds_to_target is not None for run in runs)
    ]
    if found:
        return found
    runs = by_level[asked[-1]]
    held = [run.course.best for run in runs if run.has_learned]
    known = [value for value in held if value is not None]
    none = f"no run reached {target.name} {asked[0]:g}"
    if not known:
        return [Standing(asked[-1], f"{none}, and none has learned anything", runs)]
    level = target.easiest_first(known)[0]
    words = f"{none}; until {target.printed(level)}, the best that all runs hold which have learned"
    return [Standing(level, words, [run.until_held(level) for run in runs])]


def _short(target: Target, level: float) -> str:
    """A level as it was asked for, or a value that a run has come to without its long tail."""
    text = f"{level:g}"
    return text if len(text) <= 6 else target.printed(level)


def ranked(table: Table) -> list[Line]:
    """The policies at their best numbers of clients: who reaches the level in most seeds first.

    Of equals, who takes the least energy; without those who never reach it.
    """
    lines = [line for line in table.at_best_numbers() if line.reached]
    return sorted(lines, key=lambda line: (-line.reached / line.seeds, line.energy_j.mean))


def verdict(measures: Sequence[RunMeasures], table: Table) -> Verdict:
    """Who took the least energy, how many times less than the baseline, and how sure that is.

    Where the baseline did, it is compared with the next. Only a level of the target counts that
    both hold in all seeds, over three rounds; without one nothing is claimed.

    Parameters
    ----------
    measures : sequence of RunMeasures
        All runs, at any levels.
    table : Table
        Of them at one level, which is the highest that counts.
    """
    target, lines = measures[0].target, ranked(table)
    if not lines:
        return Verdict(f"Nothing to compare: no run has learned and holds any {target.name}.")
    first, baseline = lines[0], table.baseline
    best = table.at_best_numbers()
    own = [line for line in best if line.contender.pair == baseline]
    if first.contender.pair == baseline:
        own = lines[1:2]
    if not own:
        return Verdict(f"{first.contender.policy} alone reached {target.name} {table.level:g}.")
    return _beside(measures, first.contender, own[0].contender, table.level)


def _beside(
    measures: Sequence[RunMeasures], ours: Contender, other: Contender, level: float
) -> Verdict:
    target = measures[0].target
    runs = [
        {
            run.seed: run
            for run in measures
            if (run.strategy, run.power, run.per_round) == tuple(contender)
        }
        for contender in (ours, other)
    ]
    names = [contender.policy for contender in (ours, other)]
    finals = ", ".join(
        f"{name} {_mean_final(list(own.values()))}" for name, own in zip(names, runs, strict=True)
    )
    both = [run for own in runs for run in own.values()]
    held = [run.course.best if run.has_learned else None for run in both]
    known = [value for value in held if value is not None]
    if len(known) < len(both):
        return Verdict(
            f"{names[0]} and {names[1]} cannot be compared: there is no {target.name} that both "
            f"have learned and hold in all seeds over three rounds (final: {finals})."
        )
    level = target.easiest_first([*known, level])[0]
    energy, time = (
        ratio_by_seed(
            *(
                {seed: getattr(run.until_held(level), field) for seed, run in own.items()}
                for own in runs
            )
        )
        for field in ("energy_to_target_j", "time_to_target_s")
    )
    if not energy.n:
        return Verdict(
            f"{names[0]} and {names[1]} cannot be compared: they have no seed in common."
        )
    sentence = (
        f"To hold {target.name} {target.printed(level)} in all seeds (mean of three rounds; final: "
        f"{finals}), {names[0]} used {times_less(energy.mean, 'energy')} and "
        f"{times_less(time.mean, 'time')} than {names[1]}: {_how_sure(energy)}."
    )
    return Verdict(sentence, names[0], names[1], energy, time)


def _mean_final(runs: Sequence[RunMeasures]) -> str:
    values = [run.final for run in runs if run.final is not None]
    return runs[0].target.printed(math.fsum(values) / len(values) if values else None)


def _how_sure(ratio: Estimate) -> str:
    if ratio.n == 1:
        return "one seed, which cannot say how sure this is"
    text = (
        f"the 95 % interval of the energy is {ratio.low:.3g} to {ratio.high:.3g} over {ratio.n} "
        "seeds, paired"
    )
    return text if ratio.low > 1 or ratio.high < 1 else f"{text}, so that it may be chance"
