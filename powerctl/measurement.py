"""Measured facts: time and power of one minibatch in a power mode, as tables, in and out of CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated

import numpy as np

from powerctl.durable import write_output
from powerctl.errors import InvalidInput, InvalidTable, ModeNotInSpace
from powerctl.fields import Range, parse_number
from powerctl.modes import AXES, FloatArray, IntArray, ModeArrays, ModeSpace, PowerMode
from powerctl.reading import read_csv

_Whole = Annotated[float, Range(1, 1e12, whole=True)]
_CELLS = {
    "time_ms": Annotated[float, Range(1e-9, 1e9)],
    "power_w": Annotated[float, Range(1e-9, 1e6)],
}


@dataclass(frozen=True)
class Measurement:
    """What one minibatch of a workload took in one mode: seconds, and watts of the module."""

    mode: PowerMode
    time_s: float
    power_w: float
    batch_size: int | None = None

    @property
    def energy_j(self) -> float:
        """Joules that one minibatch took."""
        return self.time_s * self.power_w


@dataclass(frozen=True)
class MeasurementTable:
    """Measurements of one workload on one board, as columns.

    Attributes
    ----------
    modes : ModeArrays
        Four arrays of shape (n,).
    batch_size : IntArray or None
        Shape (n,); None for a table of one batch size that does not name it.
    time_s, power_w : FloatArray, shape (n,)
        Seconds per minibatch (fetch stalls included) and module power.
    source : str
        File or origin, for messages.
    """

    modes: ModeArrays
    batch_size: IntArray | None
    time_s: FloatArray
    power_w: FloatArray
    source: str = "table"

    @classmethod
    def of(cls, measurements: Iterable[Measurement], source: str = "table") -> MeasurementTable:
        """The table of some measurements, all with or all without a batch size."""
        rows = list(measurements)
        sizes = [m.batch_size for m in rows if m.batch_size is not None]
        if len(sizes) not in (0, len(rows)):
            raise InvalidInput("a table needs the batch size on all of its measurements or on none")
        return cls(
            modes=ModeArrays.of([m.mode for m in rows]),
            batch_size=np.array(sizes, dtype=np.int64) if sizes else None,
            time_s=np.array([m.time_s for m in rows], dtype=np.float64),
            power_w=np.array([m.power_w for m in rows], dtype=np.float64),
            source=source,
        )

    @classmethod
    def read(cls, path: str | Path, space: ModeSpace | None = None) -> MeasurementTable:
        """Read a CSV with the columns ``cores,cpu_khz,gpu_hz,mem_hz,[batch_size,]time_ms,power_w``.

        Parameters
        ----------
        path : str or Path
            The file.
        space : ModeSpace, optional
            If given, every mode must be in it.

        Raises
        ------
        InvalidTable
            Naming file and row: a missing column, a value that is no number, NaN, zero or
            negative, a mode that stands twice or is outside the space; or an empty table.
        """
        try:
            table = _parse(read_csv(path), str(path))
        except InvalidInput as error:
            raise InvalidTable(str(error)) from None
        if space is not None:
            table.check_space(space)
        return table

    def write(self, path: str | Path) -> None:
        """Write the CSV that `read` reads."""
        columns: list[tuple[str, list[object]]] = [
            (name, axis.tolist()) for name, axis in zip(AXES, self.modes, strict=True)
        ]
        if self.batch_size is not None:
            columns.append(("batch_size", self.batch_size.tolist()))
        columns.append(("time_ms", [f"{1e3 * t:.6g}" for t in self.time_s]))
        columns.append(("power_w", [f"{p:.6g}" for p in self.power_w]))
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(name for name, _ in columns)
        writer.writerows(zip(*(values for _, values in columns), strict=True))
        write_output(path, text.getvalue())

    def check_space(self, space: ModeSpace) -> None:
        """Raise `InvalidTable`, naming the row, if a mode is not in the space."""
        outside = np.flatnonzero(space.indices(self.modes) < 0)
        if len(outside):
            row = int(outside[0])
            mode = self.modes.mode(row)
            try:
                space.check(mode)
            except ModeNotInSpace as error:
                raise InvalidTable(f"{self.source}, row {row + 2}: {error}") from None

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def energy_j(self) -> FloatArray:
        """Energy of one minibatch, shape (n,)."""
        return self.time_s * self.power_w

    def find(self, mode: PowerMode, batch_size: int) -> int | None:
        """Row of a mode, and of a batch size where the table names them; None without."""
        columns = [axis == value for axis, value in zip(self.modes, mode.values, strict=True)]
        if self.batch_size is not None:
            columns.append(self.batch_size == batch_size)
        rows = np.flatnonzero(np.logical_and.reduce(columns))
        return int(rows[0]) if len(rows) else None

    def take(self, rows: IntArray) -> MeasurementTable:
        """The table of some rows."""
        return MeasurementTable(
            modes=self.modes.take(rows),
            batch_size=None if self.batch_size is None else self.batch_size[rows],
            time_s=self.time_s[rows],
            power_w=self.power_w[rows],
            source=self.source,
        )

    def __getitem__(self, row: int) -> Measurement:
        return Measurement(
            mode=self.modes.mode(row),
            time_s=float(self.time_s[row]),
            power_w=float(self.power_w[row]),
            batch_size=None if self.batch_size is None else int(self.batch_size[row]),
        )


def _parse(rows: Iterable[list[str]], source: str) -> MeasurementTable:
    lines = iter(rows)
    header = [name.strip() for name in next(lines, [])]
    if "time_std" in header:
        raise InvalidTable(f"{source}: these are predictions (column time_std), not measurements")
    has_batch = "batch_size" in header
    wanted = [*AXES, *(["batch_size"] if has_batch else []), "time_ms", "power_w"]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise InvalidTable(f"{source}: no column {', '.join(missing)}; needed: {', '.join(wanted)}")
    columns = [header.index(name) for name in wanted]
    values: list[list[float]] = []
    seen: dict[tuple[float, ...], int] = {}
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        row = _numbers(line, columns, wanted, f"{source}, row {number}")
        key = tuple(row[:-2])
        if key in seen:
            raise InvalidTable(f"{source}, row {number}: the mode of row {seen[key]} again")
        seen[key] = number
        values.append(row)
    if not values:
        raise InvalidTable(f"{source}: the table has no rows")
    table = np.array(values)
    return MeasurementTable(
        modes=ModeArrays(*table[:, :4].astype(np.int64).T),
        batch_size=table[:, 4].astype(np.int64) if has_batch else None,
        time_s=table[:, -2] / 1e3,
        power_w=table[:, -1].copy(),
        source=source,
    )


def _numbers(line: list[str], columns: list[int], names: list[str], where: str) -> list[float]:
    """The wanted cells of a line: positive, and whole but for the last two."""
    cells = [line[column] if column < len(line) else "" for column in columns]
    return [
        parse_number(f"{where}: {name}", cell, _CELLS.get(name, _Whole))
        for name, cell in zip(names, cells, strict=True)
    ]
