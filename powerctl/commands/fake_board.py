"""`powerctl fake-board`: a folder that behaves as a Jetson, to try commands on without one."""

from __future__ import annotations

from pathlib import Path

import click

_EXAMPLES = """\b
Examples:
    powerctl fake-board orin-agx --jetpack 6 /tmp/orin
    powerctl doctor --root /tmp/orin
    powerctl profile --device jetson:/tmp/orin --modes 10 --out run.jsonl
"""


@click.command("fake-board", epilog=_EXAMPLES)
@click.argument("board")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--jetpack",
    type=click.Choice(["4", "5.0", "5", "5.1", "6"]),
    default="5.1",
    show_default=True,
    help="5 is 5.1; Nano has 4, Xavier 4 and 5.1, Orin 5.0 (AGX only), 5.1 and 6.",
)
def fake_board(board: str, folder: Path, jetpack: str) -> None:
    """Make a fake BOARD in FOLDER: files that take, round and refuse writes as the kernel does.

    Time and power come from the twin. Nothing measured on it is a Jetson's result.
    """
    from powerctl.fakes.making import make_fake_board

    sysfs = make_fake_board(board, jetpack, folder)
    state = sysfs.kernel.state
    click.echo(
        f"{folder}: {state.board}, L4T {state.l4t}; look at it: powerctl doctor --root {folder}"
    )
