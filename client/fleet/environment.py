"""What goes on around the clients of a fleet, at any time of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from powerctl.modes import FloatArray, IntArray
from wattfed.client.fleet.availability import Availability
from wattfed.client.fleet.battery import Batteries
from wattfed.client.fleet.dropout import Failures
from wattfed.client.fleet.inference import InferenceLoads


class Conditions(NamedTuple):
    """What clients find at a time; arrays of shape (m,).

    Attributes
    ----------
    leaves_s : FloatArray
        Seconds until they go away; 0 for who is away, infinite for who stays.
    told_s : FloatArray
        What they know of it: infinite also for who is there and foresees no end.
    battery_j, spare_j : FloatArray
        Energy in the battery, and what of it training may take.
    rate_hz : FloatArray
        Requests in a second.
    """

    leaves_s: FloatArray
    told_s: FloatArray
    battery_j: FloatArray
    spare_j: FloatArray
    rate_hz: FloatArray


TABLES = ("availability", "battery", "inference", "failures")


@dataclass(frozen=True, eq=False)
class Environment:
    """The columns of all clients, and the clock at which a run begins.

    All of it is a function of columns, seed and clock, so that a simulation that asks for everyone
    and a client that asks for itself get the same answers.

    Attributes
    ----------
    start_s : float
        Seconds since midnight when a run begins.
    """

    availability: Availability
    batteries: Batteries
    inference: InferenceLoads
    failures: Failures
    start_s: float = 0.0

    @classmethod
    def read(cls, group: Mapping[str, Any], count: int, folder: Path) -> Environment:
        """Of a group of clients of a fleet file in some folder; a table left out is nothing."""
        return cls(
            availability=Availability.read(group.get("availability", {}), count, folder),
            batteries=Batteries.read(group.get("battery", {}), count),
            inference=InferenceLoads.read(group.get("inference", {}), count),
            failures=Failures.read(group.get("failures", {}), count),
        )

    @classmethod
    def joined(cls, parts: Sequence[Environment], start_s: float) -> Environment:
        """Of the clients of all parts."""
        return cls(
            availability=Availability.joined([part.availability for part in parts]),
            batteries=Batteries.joined([part.batteries for part in parts]),
            inference=InferenceLoads.joined([part.inference for part in parts]),
            failures=Failures.joined([part.failures for part in parts]),
            start_s=start_s,
        )

    def at(self, rows: IntArray, seed: int, clock_s: float, battery_j: FloatArray) -> Conditions:
        """What clients find at a time.

        Parameters
        ----------
        rows : IntArray, shape (m,)
            Whose.
        seed : int
            Of the run.
        clock_s : float
            Of the run, 0 when it begins.
        battery_j : FloatArray, shape (m,)
            What is in their batteries then, see `Batteries.level_j`.
        """
        now_s = self.start_s + clock_s
        presence = self.availability.at(rows, seed, now_s)
        leaves_s = presence.stays_s(now_s)
        unforeseen = presence.here & ~self.availability.foreseen[rows]
        return Conditions(
            leaves_s=leaves_s,
            told_s=np.where(unforeseen, np.inf, leaves_s),
            battery_j=battery_j,
            spare_j=np.maximum(0.0, battery_j - self.batteries.reserve_j(rows)),
            rate_hz=self.inference.rate_at_hz(rows, now_s),
        )

    @cached_property
    def is_quiet(self) -> bool:
        """Whether nothing ever happens: all are there, on mains, serve nothing and do not fail."""
        return bool(
            np.isinf(self.availability.times.mean_on_s).all()
            and (self.availability.trace < 0).all()
            and np.isinf(self.batteries.capacity_j).all()
            and not self.inference.rate_hz.any()
            and not self.failures.crashes_per_h.any()
            and not self.failures.silent_share.any()
        )


_NEVER, _NOTHING = np.full(1, np.inf), np.zeros(1)
CALM = Conditions(_NEVER, _NEVER, _NEVER, _NEVER, _NOTHING)
"""What a client finds where nothing ever happens."""

QUIET = Environment.read({}, 1, Path())
