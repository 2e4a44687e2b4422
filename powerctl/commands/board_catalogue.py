"""`powerctl boards`, `modes`, `presets`: what the board catalogue holds; `board new` adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import json_option, per_axis_option, with_board
from powerctl.console import WholeNumbers

if TYPE_CHECKING:
    from powerctl.boards import Board


@click.command()
@click.argument("name", required=False)
@click.option("--markdown", is_flag=True, help="Print the page docs/boards.md, with all sources.")
@json_option
def boards(name: str | None, markdown: bool, as_json: bool) -> None:
    """List the boards of the catalogue, or show the one of a NAME with all its releases."""
    from powerctl.board_files import own_boards
    from powerctl.boards import board_names, load_board, releases
    from powerctl.catalogue_page import catalogue_page

    if markdown:
        click.echo(catalogue_page(), nl=False)
        return
    every = [*board_names(), *own_boards()]
    names = every if name is None else [load_board(name).name]
    found = [load_board(each, l4t) for each in names for l4t in releases(each)]
    if as_json:
        console.print_json([_board_json(board) for board in found])
        return
    header = "board, L4T from, modes, cores, CPU MHz, GPU MHz, mem MHz, TFLOP/s, GB/s, title"
    rows = []
    for board in found:
        top = board.space.maximum
        rows.append(
            (
                board.name,
                board.l4t,
                len(board.space),
                top.cores,
                top.cpu_khz // 1000,
                top.gpu_hz // 10**6,
                top.mem_hz // 10**6,
                board.peak_flops() / 1e12,
                board.peak_bandwidth() / 1e9,
                board.title,
            )
        )
    console.print_table(header.split(", "), rows)
    if name is None:
        click.echo("the oldest release is the default, as its cost model is of it: others by --l4t")
    else:
        _print_board(found)


def _print_board(releases: list[Board]) -> None:
    """What the releases of a board share, and the presets of each."""
    board = releases[0]
    peaks = ", ".join(f"{name.upper()} {peak / 1e12:.3g}" for name, peak in board.peaks.items())
    rails = ", ".join(f"{rail.label}{'' if rail.in_total else '*'}" for rail in board.rails)
    click.echo(f"modules {', '.join(board.modules)}; {board.cuda_cores} CUDA cores")
    click.echo(f"GPU at its highest clock, dense, T operations/s: {peaks}")
    click.echo(f"rails {rails} (*: not counted again in the module's power)")
    for each in releases:
        names = ", ".join(f"{preset.name} {preset.mode}" for preset in each.presets)
        click.echo(f"presets of L4T {each.l4t}: {names}")
    click.echo(
        f"default: L4T {board.l4t}, which the cost model's constants are of; others by --l4t, "
        f"as {board.name}@{releases[-1].l4t}, or l4t in a fleet file"
    )


def _board_json(board: Board) -> dict[str, Any]:
    return {
        "board": board.name,
        "title": board.title,
        "l4t": board.l4t,
        "modules": board.modules,
        "n_modes": len(board.space),
        "cores": board.space.cores,
        "cpu_khz": board.space.cpu_khz,
        "gpu_hz": board.space.gpu_hz,
        "mem_hz": board.space.mem_hz,
        "peak_flops": board.peak_flops(),
        "peaks": board.peaks,
        "peak_bandwidth": board.peak_bandwidth(),
        "rails": [rail.label for rail in board.rails],
    }


@click.command()
@with_board
@click.option("--cores", type=WholeNumbers(), help="Only these core counts, e.g. 4,8,12.")
@per_axis_option
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Rows shown.")
@json_option
def modes(
    board: Board, cores: tuple[int, ...] | None, per_axis: int | None, limit: int, as_json: bool
) -> None:
    """List the axes of a board and its power modes."""
    space = board.space
    if per_axis:
        space = space.thinned(per_axis)
    if cores:
        space = space.subspace(cores=cores)
    if as_json:
        axes = {"cores": space.cores, "cpu_khz": space.cpu_khz, "gpu_hz": space.gpu_hz}
        listed = [mode.values for mode in space]
        console.print_json({**axes, "mem_hz": space.mem_hz, "n_modes": len(space), "modes": listed})
        return
    click.echo(board.label)
    for name, values, unit in (
        ("cores", space.cores, 1),
        ("CPU MHz", space.cpu_khz, 1e3),
        ("GPU MHz", space.gpu_hz, 1e6),
        ("memory MHz", space.mem_hz, 1e6),
    ):
        click.echo(f"{name:>10}: {' '.join(f'{value / unit:g}' for value in values)}")
    click.echo(f"{len(space):,} modes; the first {min(limit, len(space))}:")
    for index in range(min(limit, len(space))):
        click.echo(f"  {space.mode(index)}")


@click.command()
@with_board
@json_option
def presets(board: Board, as_json: bool) -> None:
    """List nvpmodel's predefined modes of a board."""
    found = board.presets
    if as_json:
        console.print_json(
            [
                {
                    "id": p.id,
                    "name": p.name,
                    "default": p.is_default,
                    "mode": p.mode.values,
                    "tpc_pg_mask": p.tpc_pg_mask,
                }
                for p in found
            ]
        )
        return
    rows = [
        (p.name, p.id, str(p.mode), "default" if p.is_default else "", p.tpc_pg_mask) for p in found
    ]
    console.print_table(("preset", "id", "mode", "", "TPC mask"), rows)
    click.echo(board.label)
    if len({p.tpc_pg_mask for p in found}) > 1:
        click.echo("Changing between presets of different TPC masks needs a reboot.")


_NEW_EXAMPLES = """\b
Examples:
    powerctl doctor --report board.txt
    powerctl board new board.txt
    powerctl modes --board p9701-0007
"""


@click.group()
def board() -> None:
    """Boards of your own: files in ~/.powerctl/boards, which are known as the catalogue's are."""


@board.command(epilog=_NEW_EXAMPLES)
@click.argument("report")
@click.option("--name", help="What it is called.  [default: the module's name or part number]")
@click.option(
    "--like", help="Board whose constants the cost model starts with.  [default: nearest]"
)
@click.option("--cuda-cores", type=click.IntRange(1), help="Of its GPU.  [default: of --like]")
@click.option("--l4t", help="L4T release, if the report does not say it.")
@click.option("--out", metavar="FILE", show_default="~/.powerctl/boards/NAME.toml")
def new(report: str, **asked: Any) -> None:
    """Make a board's file from a REPORT of `powerctl doctor --report`.

    Axes, presets and rails are those of the report. The constants of the cost model are another
    board's until tables of this one are fitted, and its rail total is as the report says.
    """
    from powerctl.doctor.new_board import write_board

    path, made = write_board(report, **asked)
    top = made.space.maximum
    click.echo(f"{path}: {made.title}, {len(made.space):,} modes up to {top}; check its rails:")
    for rail in made.rails:
        click.echo(f"  {rail.label}{' (in the total)' if rail.in_total else ''}")
