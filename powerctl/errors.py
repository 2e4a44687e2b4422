"""The few exception types of powerctl: each message names the value, the range and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PowerctlError(ValueError):
    """Base of all errors that a person can mend; commands print it in one line and exit with 2."""


class UnknownName(PowerctlError):
    """A board, workload, task, strategy or preset that is not in its catalogue."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(f"unknown {what} {name!r}: {guess}known: {', '.join(names)}{hint}")


class InvalidInput(PowerctlError):
    """A value outside its range, or a file that cannot be read as what it should be."""


class InvalidTable(PowerctlError):
    """A table of measurements with a defect; the message names file and row."""


class ModeNotInSpace(PowerctlError):
    """A power mode with an axis value that the board does not have."""


class ModeNotInForce(PowerctlError):
    """The device did not take the mode that was applied."""


class Infeasible(PowerctlError):
    """No choice meets the bounds; the message names the nearest that there is."""


class DeviceUnavailable(PowerctlError):
    """The device that was asked for cannot be opened here."""


class TaskFailed(InvalidInput):
    """A user's task that is not as it should be, or whose own code failed.

    Attributes
    ----------
    traceback : str
        Of the user's own code, to be shown below the line; empty where nothing was raised in it.
    """

    def __init__(self, line: str, traceback: str = "") -> None:
        super().__init__(line)
        self.traceback = traceback
