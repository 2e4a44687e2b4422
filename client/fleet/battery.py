"""Batteries: what the device draws and what charges it, over the hours of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import BoolArray, FloatArray, IntArray
from wattfed.client.fleet.columns import FleetColumns, check_keys, number_column
from wattfed.client.fleet.hours import HOUR_S, hour_of_day, hours_between


@dataclass(frozen=True, eq=False)
class Batteries(FleetColumns):
    """The batteries of clients; arrays of shape (n,).

    Attributes
    ----------
    capacity_j : FloatArray
        Infinite on mains.
    start : FloatArray
        Share of the capacity that is there when the run begins.
    reserve : FloatArray
        Share of the capacity that training leaves alone.
    charge_w : FloatArray
        Charging power while it charges.
    draw_w : FloatArray
        What the device draws all the time, inference included; training comes on top.
    charging : BoolArray, shape (n, 24)
        The hours in which it charges.
    """

    charging: BoolArray
    capacity_j: FloatArray = number_column(np.inf, above=0.0)
    start: FloatArray = number_column(1.0, least=0.0)
    reserve: FloatArray = number_column(0.1, least=0.0)
    charge_w: FloatArray = number_column(0.0, least=0.0)
    draw_w: FloatArray = number_column(0.0, least=0.0)

    @classmethod
    def read(cls, table: Mapping[str, Any], count: int) -> Batteries:
        """Of a group of clients; ``charge_hours = [from, to]`` are the hours of charging."""
        check_keys(table, {f.name for f in fields(cls)} - {"charging"} | {"charge_hours"})
        if table and "capacity_j" not in table:
            raise InvalidInput("a battery needs capacity_j")
        numbers = cls.numbers(table, count)
        for name in ("start", "reserve"):
            if numbers[name].max() > 1:
                raise InvalidInput(f"{name} is a share of the capacity, 0 to 1")
        charging = hours_between(table.get("charge_hours", [0, 24]))
        return cls(**numbers, charging=np.broadcast_to(charging, (count, len(charging))))

    def start_j(self, rows: IntArray) -> FloatArray:
        """Energy in the batteries when the run begins."""
        full_j = self.capacity_j[rows]
        return np.where(np.isinf(full_j), np.inf, full_j * self.start[rows])

    def reserve_j(self, rows: IntArray) -> FloatArray:
        """Energy that training leaves alone; none on mains."""
        full_j = self.capacity_j[rows]
        return np.where(np.isinf(full_j), 0.0, full_j * self.reserve[rows])

    def level_j(
        self, rows: IntArray, level_j: FloatArray, since_s: FloatArray, clock_s: float
    ) -> FloatArray:
        """Energy in the batteries at a time, from what was in them earlier.

        Parameters
        ----------
        rows : IntArray, shape (m,)
            Whose.
        level_j, since_s : FloatArray, shape (m,)
            Energy at some earlier time, and that time.
        clock_s : float
            Seconds since midnight of the first day, as `since_s`.

        Returns
        -------
        FloatArray, shape (m,)
            Between 0 and the capacity; no joule is lost or gained between.
        """
        level_j, now_s = level_j.astype(np.float64), since_s.astype(np.float64)
        on = np.flatnonzero(np.isfinite(level_j) & (now_s < clock_s))
        while len(on):
            hour_end_s = (np.floor(now_s[on] / HOUR_S) + 1) * HOUR_S
            until_s = np.minimum(hour_end_s, clock_s)
            who = rows[on]
            charge_w = self.charge_w[who] * self.charging[who, hour_of_day(now_s[on])]
            change_j = (charge_w - self.draw_w[who]) * (until_s - now_s[on])
            level_j[on] = np.clip(level_j[on] + change_j, 0.0, self.capacity_j[who])
            now_s[on] = until_s
            on = on[until_s < clock_s]
        return level_j


class Levels:
    """The present energy in the batteries of some clients, brought up to date for who is asked for.

    Parameters
    ----------
    batteries : Batteries
        Columns,
    rows : IntArray, shape (n,)
        and where they have these clients, who are numbered from 0 here.
    start_s : float
        The clock at the beginning of the run.
    """

    def __init__(self, batteries: Batteries, rows: IntArray, start_s: float) -> None:
        self._batteries, self._rows = batteries, rows
        self._level_j = batteries.start_j(rows)
        self._since_s = np.full(len(rows), start_s)

    def at(self, rows: IntArray, clock_s: float) -> FloatArray:
        """Energy at a time, not before what is kept.

        What is kept is the level at a full hour: however often one asks, the sums are the same.
        """
        hour_s = np.floor(clock_s / HOUR_S) * HOUR_S
        behind = rows[self._since_s[rows] < hour_s]
        if len(behind):
            self._level_j[behind] = self._between(behind, hour_s)
            self._since_s[behind] = hour_s
        return self._between(rows, clock_s)

    def states(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """What is kept of some batteries: the energy at some time, and that time."""
        return self._level_j[rows], self._since_s[rows]

    def keep(self, row: int, level_j: float, since_s: float) -> None:
        """A battery's energy at some time is known: a training has ended."""
        self._level_j[row], self._since_s[row] = level_j, since_s

    def _between(self, rows: IntArray, clock_s: float) -> FloatArray:
        who = self._rows[rows]
        return self._batteries.level_j(who, self._level_j[rows], self._since_s[rows], clock_s)
