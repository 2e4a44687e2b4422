"""The lock on a board that the daemon serves: who holds it, until when, and what each verb does.

Knows nothing of sockets, and does one thing at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from powerctl.axes import PowerMode
from powerctl.daemon.messages import HeldByAnother, NotHeld
from powerctl.daemon.peers import Peer
from powerctl.errors import DeviceUnavailable, ModeNotInForce, PowerctlError
from powerctl.jetson.controller import OwnController
from powerctl.jetson.journal import Journal
from powerctl.jetson.rails import RailPower
from powerctl.jetson.sysfs import Sysfs
from powerctl.jetson.throttling import read_throttling
from powerctl.ownership import InUse

HOLD_S = 15.0
"""A holder of which nothing is heard for so long is taken for dead."""

_FRESH_S = 0.05  # for those who only look, sensors are not read again so soon
_RETRY_S = 2.0

log = logging.getLogger("powerctl.daemon")


@dataclass(eq=False)
class Client:
    """A connection to the daemon: who is at its other end, and whether its hold has ended.

    Attributes
    ----------
    peer : Peer
        Who that is.
    ended : str
        Why its hold of the board has ended; empty if it has not, or if it wished so.
    """

    peer: Peer
    ended: str = ""


@dataclass
class Hold:
    """A client's right to the board, and when it was last heard of."""

    client: Client
    mode: PowerMode
    heard_s: float

    def __str__(self) -> str:
        return f"{self.client.peer}, with {self.mode}"


class BoardLock:
    """Lets one client at a time set modes, and gives the board back when its holder cannot.

    What a killed controller left changed is restored when it is made.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    hold_s : float
        So long a holder may be silent.
    clock : callable
        Monotonic seconds.

    Raises
    ------
    DeviceUnavailable
        If clocks are missing; says what mends it.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        hold_s: float = HOLD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sysfs = sysfs
        self._controller = OwnController(sysfs, must_restore=False)  # it serves all the same
        self._hold_s = hold_s
        self._clock = clock
        self._hold: Hold | None = None
        self._failure: Exception | None = None
        self._seen: dict[str, Any] = {}
        self._seen_s = -_FRESH_S
        self._power: RailPower | None = None
        with suppress(DeviceUnavailable):  # modes can be set where power cannot be read
            self._power = RailPower(sysfs, self._controller.identity.total_rule)
        self._bring_back()
        try:
            Journal(sysfs).check()
        except ModeNotInForce as error:
            log.error("%s", error)

    # The verbs

    def apply(self, client: Client, mode: PowerMode) -> dict[str, Any]:
        """Set a mode; from here on the client holds the board.

        Raises
        ------
        HeldByAnother
            If another holds it.
        ModeNotInSpace, ModeNotInForce, DeviceUnavailable
            As the controller does; a mode that is not in force ends the hold, all is restored.
        """
        if self._hold is not None and self._hold.client is not client:
            raise HeldByAnother(f"the board is held by {self._hold}")
        self._controller.axes.check(mode)
        self._hold, self._seen_s = None, -_FRESH_S
        try:
            self._controller.apply(mode)
        except (PowerctlError, OSError) as error:
            client.ended = f"{mode} could not be applied"
            log.warning("%s: %s is not applied: %s", client.peer, mode, error)
            self._bring_back()
            raise
        client.ended = ""
        self._hold = Hold(client, mode, self._clock())
        log.info("%s applied %s", client.peer, mode)
        return {}

    def hold(self, client: Client) -> dict[str, Any]:
        """Hear that the holder lives; raises `NotHeld` if it is not the holder, and says why."""
        if not self._is_holder(client):
            raise NotHeld(f"the mode is not held: {client.ended or 'none was applied'}")
        return {}

    def read(self, client: Client) -> dict[str, Any]:
        """What is in force, and what the sensors say; the holder has it as it is at this moment."""
        mine = self._is_holder(client)
        if mine or self._clock() - self._seen_s >= _FRESH_S:
            self._seen, self._seen_s = self._look(), self._clock()
        holder = None
        if self._hold is not None:
            peer = self._hold.client.peer
            holder = {"pid": peer.pid, "uid": peer.uid, "mode": self._hold.mode.values}
        amiss = self._amiss() if mine else client.ended or None
        return {**self._seen, "holder": holder, "mine": mine, "amiss": amiss}

    def restore(self, client: Client) -> dict[str, Any]:
        """Bring back the state found; the hold ends, whoever's it was.

        Raises
        ------
        HeldByAnother
            If another user holds the board, and the client is not root; or if a process
            controls it without the daemon.
        ModeNotInForce
            If not all can be brought back now; it is tried again every two seconds. To others
            than the holder, whose own changes are undone, also if more may be changed.
        """
        hold = self._hold
        if hold is None:
            self._bring_back()
        elif hold.client is client:
            self._end("")
        elif client.peer.uid in (0, hold.client.peer.uid):
            self._end(f"{client.peer} restored the board")
        else:
            raise HeldByAnother(f"the board is held by {hold}: that user or root can restore it")
        if isinstance(self._failure, InUse):
            raise HeldByAnother(str(self._failure))
        self._check_restored()
        if hold is None or hold.client is not client:
            Journal(self._sysfs).check()
        return {}

    # What happens without being asked for

    def hear(self, client: Client) -> None:
        """Note that a client has said something: it lives."""
        if self._hold is not None and self._hold.client is client:
            self._hold.heard_s = self._clock()

    def leave(self, client: Client) -> None:
        """Restore at once if a client that has gone was the holder."""
        if self._is_holder(client):
            self._end("it has gone")

    def tend(self) -> None:
        """Restore if the holder is silent for too long, or if something was left changed."""
        if self._hold is not None:
            silent_s = self._clock() - self._hold.heard_s
            if silent_s > self._hold_s:
                self._end(f"nothing was heard of it for {silent_s:.1f} s")
            else:
                self._keep_noted()
        elif self._clock() - self._tended_s >= _RETRY_S:
            self._bring_back()

    def close(self) -> None:
        """Restore for the last time; raises `ModeNotInForce` if that does not succeed."""
        if self._hold is not None:
            self._end("the daemon ends")
        else:
            self._bring_back()
        if not isinstance(self._failure, InUse):  # that process restores the board itself
            self._check_restored()

    # How

    def _check_restored(self) -> None:
        if self._failure is not None:
            raise ModeNotInForce(str(self._failure))

    def _keep_noted(self) -> None:
        """Have what was found on disc for who comes after a kill, though somebody removes it."""
        try:
            self._controller.keep_noted()
        except PowerctlError as error:
            log.error("%s", error)

    def _is_holder(self, client: Client) -> bool:
        return self._hold is not None and self._hold.client is client

    def _end(self, why: str) -> None:
        """End the hold and restore; a reason that is not the holder's own wish is kept for it."""
        hold, self._hold = self._hold, None
        assert hold is not None
        hold.client.ended = why
        self._bring_back()
        log.info("the hold of %s has ended: %s", hold.client.peer, why or "as it wished")

    def _bring_back(self) -> None:
        """Restore what is noted; a failure is kept for those who ask, and tried again later."""
        before, self._failure, self._seen_s = str(self._failure), None, -_FRESH_S
        try:
            noted = Journal(self._sysfs)
            if self._controller.is_in_control or noted.found or noted.damage:
                self._controller.bring_back()
        except InUse as error:  # another controller is at work, and will restore
            self._failure = error
        except (PowerctlError, OSError) as error:
            self._failure = error
            if str(error) != before:
                log.error("not restored: %s; tried again every %g s", error, _RETRY_S)
        self._tended_s = self._clock()

    def _amiss(self) -> str | None:
        """Why the mode that is held is not in force; None if it is."""
        try:
            self._controller.verify()
        except ModeNotInForce as error:
            return str(error)
        return None

    def _look(self) -> dict[str, Any]:
        controller, throttling = self._controller, read_throttling(self._sysfs)
        power_w = None
        with suppress(OSError):  # a sensor that is busy
            power_w = self._power.total_w() if self._power else None
        return {
            "root": str(self._sysfs.root),
            "identity": controller.identity.told(),
            "axes": controller.axes.axes,
            "mode": controller.mode().values,
            "power_w": power_w,
            "power_from": f"{RailPower.name}: {' + '.join(self._power.labels)}"
            if self._power
            else "",
            "celsius": throttling.celsius,
            "throttles": throttling.now(),
            "hold_s": self._hold_s,
        }
