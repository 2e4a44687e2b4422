"""The table device: replays a table of measurements, mode by mode, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from powerctl.boards import Board
from powerctl.devices.virtual import VirtualDevice
from powerctl.errors import ModeNotInSpace
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, PowerMode
from powerctl.workload import Workload


class TableDevice(VirtualDevice):
    """A board that costs what a table says.

    Its space is the grid of the axis values that occur in the table; a mode of the grid that was
    not measured cannot be applied.

    Parameters
    ----------
    board : Board
        The board that the table was measured on.
    table : MeasurementTable
        Measurements of the one workload that runs on this device; with batch sizes, the
        workload's batch size chooses among them.
    """

    def __init__(self, board: Board, table: MeasurementTable) -> None:
        self.table = table
        sizes = np.zeros(len(table), int) if table.batch_size is None else table.batch_size
        keys = zip(*(axis.tolist() for axis in table.modes), sizes.tolist(), strict=True)
        self._rows = {key: row for row, key in enumerate(keys)}
        self._measured = {key[:4] for key in self._rows}
        axes = {n: np.unique(v).tolist() for n, v in zip(AXES, table.modes, strict=True)}
        super().__init__(board, board.space.subspace(**axes))

    @property
    def modes(self) -> Sequence[PowerMode]:
        """The modes that were measured."""
        held = self.table.modes
        return list(dict.fromkeys(held.mode(row) for row in range(len(self.table))))

    def apply(self, mode: PowerMode) -> None:
        """Set a measured mode; raises `ModeNotInSpace` for any other."""
        if mode in self.space and mode.values not in self._measured:
            raise ModeNotInSpace(f"mode {mode} was not measured in {self.table.source}")
        super().apply(mode)

    def measured(self, mode: PowerMode, workload: Workload) -> tuple[float, float]:
        """Seconds and watts of a minibatch in a mode; raises `ModeNotInSpace` if not measured."""
        batch_size = 0 if self.table.batch_size is None else workload.batch_size
        row = self._rows.get((*mode.values, batch_size))
        if row is None:
            raise ModeNotInSpace(
                f"mode {mode} with batch size {batch_size} was not measured in {self.table.source}"
            )
        return float(self.table.time_s[row]), float(self.table.power_w[row])

    def _minibatch(self, workload: Workload) -> tuple[float, float]:
        return self.measured(self._mode, workload)
