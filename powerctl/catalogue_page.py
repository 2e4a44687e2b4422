"""The page of the board catalogue, docs/boards.md: what is in its files, with their sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from powerctl.axes import AXES
from powerctl.board_files import BOARDS, known_modules, read_board
from powerctl.boards import Board, load_board

_HEAD = """\
# Boards

Made from the catalogue by `powerctl boards --markdown > docs/boards.md`; change
`powerctl/boards/*.toml` or `powerctl/known_modules.toml` instead, and make it again.

**None of this has been seen on real hardware by this project.** A release that is marked as seen
ran on the board in published logs or listings; the clocks and presets that they show agree with
the entry. On a board its kernel's own lists count, and not these: they are what simulations,
predictions and fake boards use. Of a release without an entry of its own the one before it holds.
A board that is not here works too, by what it says of itself; [jetson.md](jetson.md) says how to
add it.
"""

_KNOWN = """\
## Known by name, without lists of clocks

They run on their kernel's clocks and their nvpmodel.conf, and cannot be simulated. Only of those
with a rail here is the module's power known to be that rail's; of the others it follows the
labels, unverified.
"""


def catalogue_page() -> str:
    """The page of all boards, as Markdown."""
    parts = [_HEAD, *(_board(name) for name in sorted(BOARDS.built_in)), _KNOWN, _modules()]
    return "\n".join(parts)


def _board(name: str) -> str:
    data = read_board(name)
    releases = [(entry, load_board(name, entry["l4t"])) for entry in data["release"]]
    board = releases[0][1]
    rails = (
        f"{r.label} ({r.address}, channel {r.channel}{'' if r.in_total else ', not in the total'})"
        for r in board.rails
    )
    lines = [
        f"## {name}: {board.title}",
        "",
        f"- modules {', '.join(board.modules)}; {board.cuda_cores} CUDA cores",
        f"- rails {', '.join(rails)}",
        *(f"- {source}" for source in data.get("sources", ())),
        "",
        *_table(
            ("L4T from", "cores", "CPU MHz", "GPU MHz", "memory MHz", "seen in published logs of"),
            [_release(entry, made) for entry, made in releases],
        ),
        "",
        *_table(
            (
                "L4T from",
                "presets as nvpmodel has them: cores/CPU/GPU/memory MHz; the default in bold",
            ),
            [(entry["l4t"], ", ".join(map(_preset, entry["preset"]))) for entry in data["release"]],
        ),
        "",
    ]
    return "\n".join(lines)


def _release(entry: Mapping[str, Any], board: Board) -> tuple[str, ...]:
    space = board.space
    return (
        board.l4t,
        f"1 to {space.cores[-1]}",
        _span(space.cpu_khz, 1_000),
        _span(space.gpu_hz, 1_000_000),
        ", ".join(f"{hz / 1e6:g}" for hz in space.mem_hz),
        ", ".join(entry.get("seen", ())) or "none",
    )


def _span(values: Sequence[int], per_mhz: int) -> str:
    return f"{len(values)}: {values[0] / per_mhz:g} to {values[-1] / per_mhz:g}"


def _preset(entry: Mapping[str, Any]) -> str:
    """A preset with its limits, not what a board rounds them to; a dash is no limit."""
    limits = [
        f"{entry[axis] / per_mhz:g}" if axis in entry else "-"
        for axis, per_mhz in zip(AXES, (1, 1e3, 1e6, 1e6), strict=True)
    ]
    said = f"{entry['name']} {'/'.join(limits)}"
    return f"**{said}**" if entry.get("default") else said


def _modules() -> str:
    lines: list[str] = []
    for module in known_modules():
        rail = " + ".join(module.get("total_power_rails", ())) or "unverified"
        lines += [
            f"### {module['name']}: {module['title']}",
            "",
            f"- modules {', '.join(module['parts'])}; power: {rail}",
            f"- seen in published logs of: {', '.join(module['seen']) or 'none'}",
            *(f"- {source}" for source in module["sources"]),
            f"- left out, as it could not be found: {module['left_out']}",
            "",
        ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
