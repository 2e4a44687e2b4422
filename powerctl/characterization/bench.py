"""The Bench protocol: what runs the configurations of a study, really or virtually."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from powerctl.characterization.factors import Configuration, Level
from powerctl.characterization.results import Epoch
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
    baseline : Configuration
        The usual levels, from which factors are varied.
    levels : mapping of str to sequence of Level
        What is varied unless a person says otherwise.
    """

    name: str
    is_virtual: bool
    baseline: Configuration

    @property
    def facts(self) -> Mapping[str, str]:
        """See above."""
        ...

    @property
    def levels(self) -> Mapping[str, Sequence[Level]]:
        """See above."""
        ...

    def check(self, configuration: Configuration) -> None:
        """Raise a `PowerctlError` if the configuration cannot run here."""

    def expected_s(self, configuration: Configuration, epochs: int) -> float:
        """About how long a run will take, from a short probe or the model."""
        ...

    def run(self, configuration: Configuration, repetition: int, epochs: int) -> tuple[Epoch, ...]:
        """Run epochs, the first from a cold page cache."""
        ...

    def now(self) -> float:
        """Seconds on its clock."""
        ...

    def mode_levels(self, text: str) -> tuple[str, ...]:
        """The modes of a text: a mode, ``presets``, or ``grid:N`` for N values an axis."""
        ...

    def named_modes(self) -> Mapping[str, PowerMode]:
        """The presets by their names; the board's default is under ``default`` too."""
        ...

    def close(self) -> None:
        """Leave the device as it was found."""
