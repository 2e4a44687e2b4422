"""In words: whether a run goes on, what it does now, and what went wrong in it."""

from __future__ import annotations

import math
import time

from wattfed.server.live.snapshot import Snapshot, UnderWay

_NAMED = 20  # clients of a round in one line


def state_of(now: Snapshot) -> str:
    """Whether a run goes on, how far it has come, and how long ago that was written.

    A round waits for replies for the run's `timeout_s`: who writes nothing for longer may be dead.
    """
    rounds = f"round {now.round} of {now.config.rounds}"
    if now.is_finished:
        return f"finished, {rounds}"
    silent_s = max(time.time() - now.written_s, 0)
    if silent_s > now.config.timeout_s:
        return f"silent for {_duration(silent_s)}, {rounds}"
    return f"running, {rounds}, written {_duration(silent_s)} ago"


def under_way(round_: UnderWay) -> str:
    """The round that goes on, in a line."""
    clients = [str(client) for client in round_.clients[:_NAMED]]
    if len(round_.clients) > _NAMED:
        clients.append(f"and {len(round_.clients) - _NAMED:,} more")
    by = f"; deadline {round_.deadline_s:.3g} s" if math.isfinite(round_.deadline_s) else ""
    began = time.strftime("%H:%M:%S", time.localtime(round_.began_s))
    who = f"clients {' '.join(clients)}" if clients else "nobody"
    return f"round {round_.round} began at {began}: {who}{by}"


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
