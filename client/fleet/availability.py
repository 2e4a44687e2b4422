"""Availability: when clients are there, by chance or as a trace says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import BoolArray, FloatArray, IntArray
from wattfed.client.fleet.columns import FleetColumns, check_keys, number_column
from wattfed.client.fleet.counters import exponential, uniform
from wattfed.client.fleet.traces import NO_TRACES, Traces, read_traces

_AT_FIRST, _DURATION = 3, 4  # subjects of the random numbers


class Presence(NamedTuple):
    """Whether clients are there, and at what time that changes; arrays of shape (m,)."""

    here: BoolArray
    until_s: FloatArray

    def stays_s(self, clock_s: float) -> FloatArray:
        """How long who is there will stay; 0 for who is not."""
        return np.where(self.here, self.until_s - clock_s, 0.0)


@dataclass(frozen=True, eq=False)
class MeanTimes(FleetColumns):
    """Mean times there and away of clients that come and go by chance; shape (n,), seconds."""

    mean_on_s: FloatArray = number_column(np.inf, above=0.0)
    mean_off_s: FloatArray = number_column(1.0, above=0.0)


class Renewal:
    """Clients that are there and away in turn, for times that are exponentially distributed.

    The k-th time of a client is a function of seed, client and k, so that the answer for a time is
    the same whoever is asked for and in which order. Where each client stands is kept, so that a
    clock that goes on costs only the turns in between; one that goes back starts anew.

    Parameters
    ----------
    times : MeanTimes
        Of each client; who never goes has an infinite time there.
    seed : int
        Of the run.
    """

    def __init__(self, times: MeanTimes, seed: int) -> None:
        n = len(times.mean_on_s)
        self._times, self._seed = times, seed
        self._here = np.zeros(n, dtype=bool)
        self._turn = np.zeros(n, dtype=np.int64)
        self._since_s = np.zeros(n)
        self._until_s = np.zeros(n)
        self._restart(np.arange(n))

    def at(self, rows: IntArray, clock_s: float) -> Presence:
        """Who is there at a time, at least 0, and until when."""
        early = rows[self._since_s[rows] > clock_s]
        if len(early):
            self._restart(early)
        behind = rows[self._until_s[rows] <= clock_s]
        while len(behind):
            self._here[behind] ^= True
            self._turn[behind] += 1
            self._since_s[behind] = self._until_s[behind]
            self._until_s[behind] += self._duration_s(behind)
            behind = behind[self._until_s[behind] <= clock_s]
        return Presence(self._here[rows], self._until_s[rows])

    def _restart(self, rows: IntArray) -> None:
        """As if the process had been going on for ever before 0."""
        on_s, off_s = self._times.mean_on_s[rows], self._times.mean_off_s[rows]
        share_there = 1 / (1 + off_s / on_s)
        self._here[rows] = uniform(self._seed, _AT_FIRST, rows, 0) < share_there
        self._turn[rows] = 0
        self._since_s[rows] = 0.0
        self._until_s[rows] = self._duration_s(rows)

    def _duration_s(self, rows: IntArray) -> FloatArray:
        there = self._here[rows]
        mean_s = np.where(there, self._times.mean_on_s[rows], self._times.mean_off_s[rows])
        return mean_s * exponential(self._seed, _DURATION, rows, self._turn[rows])


@dataclass(frozen=True, eq=False)
class Availability:
    """When the clients of a fleet are there.

    Attributes
    ----------
    times : MeanTimes
        Of who comes and goes by chance.
    trace : IntArray, shape (n,)
        Which trace a client follows; -1 for none.
    traces : Traces
        All there are.
    foreseen : BoolArray, shape (n,)
        Whether a client knows when it will go.
    """

    times: MeanTimes
    trace: IntArray
    traces: Traces
    foreseen: BoolArray
    _renewals: dict[int, Renewal] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def read(cls, table: Mapping[str, Any], count: int, folder: Path) -> Availability:
        """Of a group of clients: mean times, or a ``trace`` file that is given out in turn."""
        check_keys(table, {"mean_on_s", "mean_off_s", "trace", "foreseen"})
        if "trace" not in table and ("mean_on_s" in table) != ("mean_off_s" in table):
            raise InvalidInput("mean_on_s and mean_off_s belong together")
        foreseen = table.get("foreseen", True)
        if not isinstance(foreseen, bool):
            raise InvalidInput(f"foreseen is true or false, got {foreseen!r}")
        means = {k: v for k, v in table.items() if k.startswith("mean_")}
        traces = read_traces(folder / table["trace"]) if "trace" in table else NO_TRACES
        return cls(
            times=MeanTimes.read(means, count),
            trace=np.arange(count) % len(traces) if len(traces) else np.full(count, -1),
            traces=traces,
            foreseen=np.full(count, foreseen),
        )

    @classmethod
    def joined(cls, parts: Sequence[Availability]) -> Availability:
        """Of the clients of all parts."""
        first = np.cumsum([0, *(len(part.traces) for part in parts)])
        shifted = [
            np.where(p.trace < 0, -1, p.trace + f) for p, f in zip(parts, first, strict=False)
        ]
        return cls(
            times=MeanTimes.joined([part.times for part in parts]),
            trace=np.concatenate(shifted),
            traces=Traces.joined([part.traces for part in parts]),
            foreseen=np.concatenate([part.foreseen for part in parts]),
        )

    def at(self, rows: IntArray, seed: int, clock_s: float) -> Presence:
        """Who is there at a time, and until when.

        Parameters
        ----------
        rows : IntArray, shape (m,)
            Whose.
        seed : int
            Of the run.
        clock_s : float
            Seconds, at least 0.
        """
        if seed not in self._renewals:
            self._renewals[seed] = Renewal(self.times, seed)
        here, until_s = self._renewals[seed].at(rows, clock_s)
        traced = np.flatnonzero(self.trace[rows] >= 0)
        if len(traced):
            here[traced], until_s[traced] = self.traces.at(self.trace[rows[traced]], clock_s)
        return Presence(here, until_s)
