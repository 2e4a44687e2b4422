"""What goes on around the clients of a fleet, at any time of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.fleet.availability import Availability
from client.fleet.battery import Batteries
from client.fleet.failures import Failures
from client.fleet.inference import InferenceLoads

TABLES = ("availability", "battery", "inference", "failures")


@dataclass(frozen=True, eq=False)
class Surroundings:
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
    def read(cls, group: Mapping[str, Any], count: int, folder: Path) -> Surroundings:
        """Of a group of clients of a fleet file in some folder; a table left out is nothing."""
        return cls(
            availability=Availability.read(group.get("availability", {}), count, folder),
            batteries=Batteries.read(group.get("battery", {}), count),
            inference=InferenceLoads.read(group.get("inference", {}), count),
            failures=Failures.read(group.get("failures", {}), count),
        )

    @classmethod
    def joined(cls, parts: Sequence[Surroundings], start_s: float) -> Surroundings:
        """Of the clients of all parts."""
        return cls(
            availability=Availability.joined([part.availability for part in parts]),
            batteries=Batteries.joined([part.batteries for part in parts]),
            inference=InferenceLoads.joined([part.inference for part in parts]),
            failures=Failures.joined([part.failures for part in parts]),
            start_s=start_s,
        )

    @property
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


QUIET = Surroundings.read({}, 1, Path())
