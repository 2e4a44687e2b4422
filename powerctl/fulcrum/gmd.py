"""GMD: gradient-descent-based search over the axes of the mode, as published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerctl.fulcrum.search import Search, Solution
from powerctl.modes import FloatArray

_LEAST_DIFFERENCE_W = 1e-3  # to divide by


@dataclass(frozen=True)
class GMD:
    """Gradient-descent-based search over the four axes of a power mode.

    Profiles the middle mode and a probe on each axis, then moves along one axis at a time: towards
    most time saved per watt while within the power limit, towards least time lost per watt while
    above. Modes above one that is over the limit, and below one that is within, are not profiled.
    In a mode it tries batch sizes in the problem's order until one is feasible.

    References
    ----------
    Fulcrum (arXiv 2509.20205), its section on GMD.
    """

    name: str = "gmd"

    def solve(self, search: Search) -> Solution:
        """Search to the cap, or until every mode is profiled or pruned."""
        if not search.problem.choices:
            return search.solution("no batch fills within the latency")
        descent = _Descent(search)
        going = descent.start()
        while going:
            base = descent.base()
            mode = descent.along_an_axis(base)
            if mode is None:
                mode = descent.backtrack(base)
            if mode is None:
                return search.solution("every other mode is pruned")
            going = descent.visit(mode)
            if going:
                descent.compare(base, mode)
        return search.solution(f"the cap of {search.cap} modes")


class _Descent:
    """What GMD knows: which modes are open, and the slope of each axis."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.steps = search.candidates.steps
        self.open = np.ones(len(search.candidates), dtype=bool)
        self.within: list[int] = []  # profiled modes, by the power limit
        self.over: list[int] = []
        self.slopes = np.zeros(self.steps.shape[1])
        self.compared = list(search.problem.choices[0])  # jobs that are measured in every mode

    def start(self) -> bool:
        """Profile the middle, and half-way from it on each axis; False at the cap.

        Of two middle values the higher counts, and half-way is rounded away from it.
        """
        last = np.array(self.search.candidates.space.shape) - 1
        middle = (last + 1) // 2
        base = self.search.candidates.nearest(middle)
        if not self.visit(base):
            return False
        end = last if base in self.within else np.zeros_like(last)
        for axis in range(len(last)):
            way = (end - middle)[axis] / 2
            probe = middle.copy()
            probe[axis] += int(np.copysign(np.ceil(abs(way)), way))
            mode = self.search.candidates.nearest(probe)
            if mode != base and not self.visit(mode):
                return False
            self.compare(base, mode)
        return True

    def visit(self, mode: int) -> bool:
        """Profile a mode, one choice after the other until one is feasible; False at the cap."""
        limit_w = self.search.problem.power_limit_w
        powers_w: list[float] = []
        feasible = False
        for index, choice in enumerate(self.search.problem.choices):
            if not self.search.profile(mode, choice):
                return False
            found = self.search.evaluate([mode])
            powers_w.append(float(found.power_w[0, index]))
            feasible = bool(found.feasible[0, index])
            if feasible:
                break
        is_over = powers_w[0] > limit_w and not feasible
        (self.over if is_over else self.within).append(mode)
        self.open[mode] = False
        if min(powers_w) > limit_w:
            self.open &= ~np.all(self.steps >= self.steps[mode], axis=1)
        elif feasible or max(powers_w) <= limit_w:  # else a lower mode may do with another batch
            self.open &= ~np.all(self.steps <= self.steps[mode], axis=1)
        return True

    def base(self) -> int:
        """Where to move from: the best feasible mode, else the fastest within, or least power."""
        best = self.search.best()
        if best is not None:
            return best[0]
        times, powers = self._costs()
        if self.within:
            return min(self.within, key=lambda mode: times[mode])
        return min(self.over, key=lambda mode: powers[mode])

    def along_an_axis(self, base: int) -> int | None:
        """The median open mode along the axis of the best slope that has one."""
        up = base in self.within
        for axis in np.argsort(-self.slopes if up else self.slopes, kind="stable").tolist():
            change = self.steps - self.steps[base]
            others = np.delete(change, axis, axis=1)
            beyond = change[:, axis] > 0 if up else change[:, axis] < 0
            open_modes = np.flatnonzero(self.open & beyond & ~others.any(axis=1))
            if len(open_modes):
                return int(open_modes[(len(open_modes) - 1) // 2])
        return None

    def backtrack(self, base: int) -> int | None:
        """Of the open modes nearest to a mode, the one that the slopes promise most of."""
        open_modes = np.flatnonzero(self.open)
        if not len(open_modes):
            return None
        change = self.steps[open_modes] - self.steps[base]
        distance = np.abs(change).sum(axis=1)
        nearest = distance == distance.min()
        promise = np.where(nearest, change @ self.slopes, -np.inf)
        return int(open_modes[promise.argmax()])

    def compare(self, base: int, mode: int) -> None:
        """Learn a slope from two modes that differ on one axis: seconds per watt."""
        differs = np.flatnonzero(self.steps[base] != self.steps[mode])
        if len(differs) == 1:
            times, powers = self._costs()
            gained_s, cost_w = abs(times[mode] - times[base]), abs(powers[mode] - powers[base])
            self.slopes[differs[0]] = gained_s / max(cost_w, _LEAST_DIFFERENCE_W)

    def _costs(self) -> tuple[FloatArray, FloatArray]:
        """Time of the job that should be fast, and power, of each mode with the first choice."""
        times = self.search.time_s[:, self.compared[0]]
        return times, self.search.power_w[:, self.compared].max(axis=1)
