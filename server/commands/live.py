"""`wattfed top` and `wattfed watch`: a run while it goes on, or after."""

from __future__ import annotations

from pathlib import Path

import click

from powerctl import console

_TOP_EXAMPLES = """\b
Examples:
  wattfed top
  wattfed top runs/digits-pace-slack-seed0
  wattfed top /data/runs --once --json
"""

_folder = click.argument("folder", type=click.Path(path_type=Path), default="runs")


@click.command(epilog=_TOP_EXAMPLES)
@_folder
@click.option("--once", is_flag=True, help="Print one snapshot, as where this is no terminal.")
@click.option(
    "--every",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one snapshot as JSON.")
def top(folder: Path, once: bool, every: float, as_json: bool) -> None:
    """Show a run in the terminal while it goes on: rounds, clients, limits, what went wrong.

    FOLDER is a run's results, or one above: then it is the run there that began last, by default in
    runs. It reads only the results, of a simulation as of a deployment, and ends with the run.
    """
    from rich.console import Console

    from server.live.run import LiveRun
    from server.live.text import lines_of, show

    run, screen = LiveRun(folder), Console()
    if as_json:
        console.print_json(run.look().record())
    elif once or not screen.is_terminal:
        click.echo("\n".join(lines_of(run.look())))
    else:
        show(run, screen, every)
