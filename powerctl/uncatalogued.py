"""Boards that the catalogue lacks, by what they say of themselves.

Axes, presets and rails are the board's own. What it cannot tell, its cost model starts with, is
lent by the board of the catalogue that is most like it: of the same chip if there is one, and of
the nearest count of cores and highest clocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from powerctl.axes import AXES
from powerctl.board_files import every_board, known_module, read_board
from powerctl.boards import Board, board_of

_LENT = (
    *("cuda_cores", "cpu_architecture", "cluster_sizes"),
    *("hardware", "operations_per_gpu_cycle"),
)


def found_board(said: Mapping[str, Any]) -> Board:
    """The board that a description of `powerctl.jetson.self_description.describe` is of."""
    data = board_data(said, most_like(said))
    return replace(board_of(said["name"], data, data["release"][0]), is_catalogued=False)


def board_data(said: Mapping[str, Any], lender: str) -> dict[str, Any]:
    """What a board says of itself in the form of the catalogue's files.

    Parameters
    ----------
    said : mapping
        A description.
    lender : str
        The board whose constants the cost model starts with.
    """
    lent = {key: read_board(lender)[key] for key in _LENT if key in read_board(lender)}
    known = known_module(said["parts"]) or {}
    if cores := known.get("cuda_cores"):
        lent["cuda_cores"] = cores
        lent["hardware"] = {**lent["hardware"], "flop_per_gpu_cycle": 2 * cores}
    maxn = {"id": 0, "name": "MAXN", "default": True}
    return {
        "title": known.get("title") or said["model"] or said["name"],
        "aliases": [],
        "modules": said["parts"] or [said["name"]],
        "compatible": said["compatible"],
        "total_power_rails": said["total_power_rails"],
        **lent,
        "rail": said["rail"],
        "release": [{"l4t": said["l4t"], **said["axes"], "preset": said["preset"] or [maxn]}],
    }


def most_like(said: Mapping[str, Any]) -> str:
    """The board of the catalogue that is most like one that says such things of itself."""
    return min(every_board(), key=lambda name: _unlikeness(said, read_board(name)))


def _unlikeness(said: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[bool, float]:
    axes = said["axes"]
    newest = known["release"][-1]
    apart = (abs(math.log(axes[axis][-1] / newest[axis][-1])) for axis in AXES)
    return not set(said["compatible"]) & set(known.get("compatible", ())), sum(apart)
