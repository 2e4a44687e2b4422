"""The page of the board catalogue, docs/boards.md: what is in its files, with their sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from powerctl.axes import AXES
from powerctl.board_files import BOARDS, known_modules, read_board
from powerctl.boards import Board, load_board

_HEAD = """\
# Boards

The boards that powerctl knows, with the sources of every fact. Simulations, predictions and fake
boards use these clocks and presets. On a real board powerctl uses what its kernel lists instead.

**This project has not checked any of it on real hardware.** The last column names the releases of
which published logs or listings were found; the clocks and presets in them agree with the entry.
A release that is not in a table has the values of the one before it. A board that is not on this
page works too, with what it says of itself; [jetson.md](jetson.md) shows how to add it.

The command `powerctl boards --markdown > docs/boards.md` makes this page. To change it, edit
`powerctl/boards/*.toml` or `powerctl/known_modules.toml`.
"""

_KNOWN = """\
## Modules that cannot be simulated

For these modules no full list of clocks is published. On the board itself powerctl uses the clocks
of its kernel and the presets of its nvpmodel.conf. Where a power rail is given, it measures the
power of the whole module; where it says *unverified*, powerctl chooses the rails by their labels.
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
        f"- part numbers {', '.join(board.modules)}; {board.cuda_cores} CUDA cores",
        f"- power rails {', '.join(rails)}",
        *_sources(data),
        "",
        *_table(
            ("from L4T", "cores", "CPU MHz", "GPU MHz", "memory MHz", "published logs found"),
            [_release(entry, made) for entry, made in releases],
        ),
        "",
        *_table(
            (
                "from L4T",
                "presets: cores/CPU/GPU/memory MHz (-: no limit); the default in bold",
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
    return f"{len(values)} from {values[0] / per_mhz:g} to {values[-1] / per_mhz:g}"


def _sources(data: Mapping[str, Any]) -> list[str]:
    return [f"- source of {source}" for source in data.get("sources", ())]


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
            f"- part numbers {', '.join(module['parts'])}; power rail: {rail}",
            f"- published logs found: {', '.join(module['seen']) or 'none'}",
            *_sources(module),
            f"- not found: {module['left_out']}",
            "",
        ]
    return "\n".join(lines)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
