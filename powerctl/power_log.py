"""Power and temperature of a board over time, from a log of tegrastats or of jtop."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from powerctl.boards import Board
from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray
from powerctl.reading import misread, read_lines

_CLOCK = re.compile(r"(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d)\s")
_RAIL = re.compile(r"(\w+) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)")
_HEAT = re.compile(r"([\w-]+)@(-?[\d.]+)C")
_NO_PART = {"PMIC", "Tboard", "Tdiode", "tboard", "tdiode"}
"""Zones that are no part of the chip: that of the PMIC says 50 or 100 whatever it is."""
_NOTHING_C = -50.0  # a zone that is switched off says -256
_LEAST = 10  # lines


@dataclass(frozen=True)
class PowerLog:
    """What a board drew, and how hot its hottest part was; arrays of shape (n,).

    Attributes
    ----------
    time_s : FloatArray
        Since the first line.
    power_w : FloatArray
        Of the module.
    celsius : FloatArray
        Of the hottest part.
    """

    time_s: FloatArray
    power_w: FloatArray
    celsius: FloatArray

    @classmethod
    def read(cls, path: Path, board: Board, interval_s: float = 1.0) -> PowerLog:
        """The log of a board.

        Parameters
        ----------
        path : Path
            Lines of tegrastats, or the CSV file that jtop's logger writes.
        board : Board
            Its rails say which of them make up the module.
        interval_s : float
            Between two lines that do not tell the time.

        Raises
        ------
        InvalidInput
            Naming the file, and the line that is neither.
        """
        lines = [line for line in read_lines(path) if line.strip()]
        if len(lines) < _LEAST:
            raise InvalidInput(f"{path}: {len(lines)} lines, and {_LEAST} are the least")
        if "," in lines[0] and "Power TOT" in lines[0]:
            rows = _of_jtop(path, lines, interval_s)
        else:
            rows = _of_tegrastats(path, lines, board, interval_s)
        time_s, power_w, celsius = np.array(rows).T
        if (np.diff(time_s) < 0).any():
            raise InvalidInput(f"{path}: its times go back: the log of one run is wanted")
        return cls(time_s - time_s[0], power_w, celsius)


def _of_tegrastats(
    path: Path, lines: list[str], board: Board, interval_s: float
) -> list[tuple[float, float, float]]:
    total = {rail.label for rail in board.rails if rail.in_total}
    rows = []
    for number, line in enumerate(lines):
        where = f"{path}, line {number + 1}"
        rails = {name: float(mw) for name, mw in _RAIL.findall(line) if name in total}
        heat = [float(c) for zone, c in _HEAT.findall(line) if zone not in _NO_PART]
        heat = [celsius for celsius in heat if celsius > _NOTHING_C]
        if rails.keys() != total or not heat:
            lacks = ", ".join(sorted(total - rails.keys())) or "temperatures"
            raise InvalidInput(f"{where}: no line of tegrastats of {board.name}: it lacks {lacks}")
        clock = _CLOCK.match(line)
        with misread(where):
            at = datetime.strptime(clock[1], "%m-%d-%Y %H:%M:%S").timestamp() if clock else None
        time_s = number * interval_s if at is None else at
        rows.append((time_s, sum(rails.values()) / 1e3, max(heat)))
    return rows


def _of_jtop(path: Path, lines: list[str], interval_s: float) -> list[tuple[float, float, float]]:
    rows = []
    for number, values in enumerate(csv.DictReader(lines)):
        with misread(f"{path}, line {number + 2}"):
            heat = [
                float(text)
                for name, text in values.items()
                if name.startswith("Temp ") and name[5:] not in _NO_PART and text
            ]
            heat = [celsius for celsius in heat if celsius > _NOTHING_C]
            told = values.get("time")
            at = datetime.fromisoformat(told).timestamp() if told else number * interval_s
            rows.append((at, float(values["Power TOT"]) / 1e3, max(heat)))
    return rows
