"""Runs the plan of a study: what the log has is not repeated, and what is left is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from powerctl.characterization.plan import Cell, Level, Plan, Run
from powerctl.characterization.results import Epoch, Result
from powerctl.characterization.study_log import StudyLog
from powerctl.modes import PowerMode


class Bench(Protocol):
    """Runs configurations, one at a time.

    Attributes
    ----------
    name : str
        What runs on what, in one line.
    facts : mapping of str to str
        All that somebody who compares two studies must know, for the log and the report.
    is_virtual : bool
        Whether its time and energy are a model's.
    baseline : Cell
        The usual levels, from which factors are varied.
    levels : mapping of str to sequence of Level
        What is varied unless a person says otherwise.
    """

    name: str
    is_virtual: bool
    baseline: Cell

    @property
    def facts(self) -> Mapping[str, str]:
        """What somebody who compares two studies must know."""
        ...

    @property
    def levels(self) -> Mapping[str, Sequence[Level]]:
        """The levels of each factor that vary by default."""
        ...

    def check(self, configuration: Cell) -> None:
        """Raise a `PowerctlError` if the configuration cannot run here."""

    def expected_s(self, configuration: Cell, epochs: int) -> float:
        """About how long a run will take, from a short probe or the model."""
        ...

    def run(self, configuration: Cell, repetition: int, epochs: int) -> tuple[Epoch, ...]:
        """Run epochs, the first from a cold page cache."""
        ...

    def now(self) -> float:
        """Seconds on the clock of the bench, virtual or real."""
        ...

    def mode_levels(self, text: str) -> tuple[str, ...]:
        """The modes of a text: a mode, ``presets``, or ``grid:N`` for N values an axis."""
        ...

    def named_modes(self) -> Mapping[str, PowerMode]:
        """The presets by their names; the board's default is under ``default`` too."""
        ...

    def close(self) -> None:
        """Leave the device as it was found."""


@dataclass(frozen=True)
class StudyProgress:
    """Where a study stands: runs done of all, what runs next, and seconds left as expected."""

    done: int
    total: int
    next: Cell | None
    seconds_left: float
    left_out: int = 0


def expected(bench: Bench, plan: Plan) -> dict[Cell, float]:
    """About how many seconds a run of each cell takes; also checks that each can run."""
    cells = plan.cells()
    for cell in cells:
        bench.check(cell)
    return {cell: bench.expected_s(cell, plan.epochs) for cell in cells}


def run_study(
    bench: Bench,
    plan: Plan,
    log: StudyLog,
    expected_s: Mapping[Cell, float],
    *,
    budget_s: float = math.inf,
    only: int | None = None,
    progress: Callable[[StudyProgress], None] = lambda now: None,
) -> StudyProgress:
    """Run what the log of a study does not have yet.

    Parameters
    ----------
    bench, plan, log
        What runs, which, and where results are kept, each as soon as there is one.
    expected_s : mapping
        Of each cell; see `expected`. What runs take corrects it.
    budget_s : float
        Of the bench's time; a run that is not expected to end within is not begun.
    only : int, optional
        Run this repetition alone.
    progress : callable
        Told before each run, and at the end.

    Returns
    -------
    Progress
        At the end.
    """
    runs = [run for run in plan.runs() if only is None or run.repetition == only]
    missing = log.missing(runs)
    began_s = bench.now()
    took_s = foreseen_s = 0.0
    for number, run in enumerate(missing):
        factor = took_s / foreseen_s if foreseen_s else 1.0
        next_s = factor * expected_s[run.configuration]
        if bench.now() - began_s + next_s > budget_s:
            return _told(progress, runs, missing[number:], None, 0.0, left_out=True)
        left_s = factor * sum(expected_s[later.configuration] for later in missing[number:])
        _told(progress, runs, missing[number:], run.configuration, left_s)
        before_s = bench.now()
        epochs = bench.run(run.configuration, run.repetition, plan.epochs)
        seconds = bench.now() - before_s
        log.append(Result(run.configuration, run.repetition, epochs, seconds))
        took_s, foreseen_s = took_s + seconds, foreseen_s + expected_s[run.configuration]
    return _told(progress, runs, [], None, 0.0)


def _told(
    progress: Callable[[StudyProgress], None],
    runs: list[Run],
    left: list[Run],
    following: Cell | None,
    seconds_left: float,
    left_out: bool = False,
) -> StudyProgress:
    now = StudyProgress(
        done=len(runs) - len(left),
        total=len(runs),
        next=following,
        seconds_left=seconds_left,
        left_out=len(left) if left_out else 0,
    )
    progress(now)
    return now


def identity_of(bench: Bench, plan: Plan) -> dict[str, Any]:
    """What a log says it is of."""
    return {
        "name": bench.name,
        "facts": dict(bench.facts),
        "virtual": bench.is_virtual,
        "modes": {name: str(mode) for name, mode in bench.named_modes().items()},
        "baseline": asdict(plan.baseline),
        "epochs": plan.epochs,
    }
