"""The exceptions that a person can mend: each message names the value, the range and the remedy.

    PowerctlError
        UnknownName         not in its catalogue
        InvalidInput        a value, or a file, that is not what it should be
            TaskFailed      a user's task, or what its own code raised
            NoFile          no file of a name (powerctl.reading)
            NoModule        no module, or file, of a name (powerctl.plugins)
            NeedsData       an operator whose work depends on its data (powerctl.pagoda.counting)
        InvalidTable        a table of measurements with a defect
        ModeNotInSpace      a mode that the board does not have
        ModeNotInForce      a mode that the device did not take, or lost
            NotHeld         the daemon's hold has ended (powerctl.daemon.messages)
        Infeasible          no choice meets the bounds
        DeviceUnavailable   a device, or an agent, that cannot be reached
            HeldByAnother   another client holds the board (powerctl.daemon.messages)
            InUse           another process has locked a file (powerctl.ownership)
        Refused             who was asked says no, and why
            TurnRefused     the gate: mostly, the turn would come too late (wattfed.client.gate)
            CallRefused     the agent, with its status (wattfed.client.agent.calls)
        FlowerRunFailed     a run, or a command, of Flower's (wattfed.server.engines.flower_tools)
        NoClients           nobody came, or took part (wattfed.server.run.federation)
        WorkerDied          a simulating process ended (wattfed.server.engines.workers)
        Damaged             no whole checkpoint (wattfed.server.run.checkpoints)

A kind of its own is for who catches it apart; all others are of the few above. Whoever says no
*refuses*, and gives a refusal; only a client *declines* a round, the word of offers and reports.
Files and protocols keep the words they have: `rejected` in the ledger and in the agent's counts.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_QUOTED = 200  # characters of a name of others in a message


class PowerctlError(ValueError):
    """Base of all errors that a person can mend; commands print it in one line and exit with 2."""


class UnknownName(PowerctlError):
    """A board, workload, task, strategy or preset that is not in its catalogue."""

    def __init__(self, what: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name[:_QUOTED], names, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        shown = repr(name) if len(name) <= _QUOTED else f"{name[:_QUOTED]!r}..."
        super().__init__(f"unknown {what} {shown}: {guess}known: {', '.join(names)}{hint}")
        self._asked = (what, name, names, hint)

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, list[str], str]]:
        return type(self), self._asked  # from a worker process, the message alone makes none


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
    """The device, or the agent, that was asked for cannot be opened or reached here."""


class Refused(PowerctlError):
    """Who was asked says no: an agent, or its gate; the message says why."""


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
