"""Whether a mode is truly in force while something runs: asked for against measured."""

from __future__ import annotations

from powerctl.axes import PowerMode
from powerctl.errors import ModeNotInForce
from powerctl.jetson.clocks import Clocks
from powerctl.jetson.nvpmodel import running_preset
from powerctl.jetson.throttling import read_throttling

_CPU_TOLERANCE = 0.05  # of cycle counters over a short while
_CLOCK_TOLERANCE = 0.01


class Verification:
    """Holds a mode against what is measured, from the moment it was applied.

    Parameters
    ----------
    clocks : Clocks
        Of the board.
    mode : PowerMode
        What was applied just now.
    """

    def __init__(self, clocks: Clocks, mode: PowerMode) -> None:
        self._clocks = clocks
        self._mode = mode
        self._throttling = read_throttling(clocks.sysfs)
        self._preset = running_preset(clocks.sysfs)

    def check(self) -> None:
        """Look once, under load.

        Raises
        ------
        ModeNotInForce
            If another program moved a limit, a measured clock is not the one asked for, or the
            board has throttled since the mode was applied; the message names the axis and why.
        """
        try:
            self._clocks.check(self._mode)
        except ModeNotInForce as error:
            raise ModeNotInForce(f"{error}; {self._mover()}") from None
        why = read_throttling(self._clocks.sysfs).since(self._throttling)
        for axis, asked, runs, tolerance in self._measured():
            if abs(runs - asked) > tolerance * asked:
                raise ModeNotInForce(
                    f"{axis} of mode {self._mode} is not in force: asked {asked / 1e6:g} MHz, "
                    f"runs at {runs / 1e6:g} MHz; {why or 'no throttling is counted'}"
                )
        if why:
            raise ModeNotInForce(
                f"clocks of mode {self._mode} read right now, but the board throttled: {why}"
            )

    def _measured(self) -> list[tuple[str, float, float, float]]:
        """Axis, Hz asked for and measured, and tolerance; what cannot be measured is left out."""
        sysfs, mode = self._clocks.sysfs, self._mode
        shown = [
            (f"cpu ({name})", 1e3 * mode.cpu_khz, 1e3 * khz, _CPU_TOLERANCE)
            for name, khz in self._clocks.cpu.measured().items()
        ]
        for axis, asked, runs in (
            ("gpu", mode.gpu_hz, self._clocks.gpu.measured(sysfs)),
            ("memory", mode.mem_hz, self._clocks.memory.measured(sysfs)),
        ):
            if runs is not None:
                shown.append((axis, float(asked), float(runs), _CLOCK_TOLERANCE))
        return shown

    def _mover(self) -> str:
        """Who else may have moved it."""
        preset = running_preset(self._clocks.sysfs)
        if preset != self._preset:
            return f"nvpmodel was switched from mode {self._preset} to {preset} meanwhile"
        return "another program moved it (jetson_clocks, nvpmodel, a service): stop that first"
