"""`wattfed top` and `wattfed watch`: a run while it goes on, or after."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from powerctl import console
from powerctl.stopping import Stopped

_TOP_EXAMPLES = """\b
Examples:
  wattfed top
  wattfed top runs/digits-pace-slack-seed0
  wattfed top /data/runs --once --json
"""

_WATCH_EXAMPLES = """\b
Examples:
  wattfed watch
  wattfed watch /data/runs --port 0
  wattfed watch /data/runs --host 0.0.0.0
"""

_folder = click.argument("folder", type=click.Path(path_type=Path), default="runs")


@click.command("top", epilog=_TOP_EXAMPLES)
@_folder
@click.option(
    "--once", is_flag=True, help="Print one snapshot; the default if the output is not a terminal."
)
@click.option(
    "--every",
    type=console.Quantity("seconds", least=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between updates.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one snapshot as JSON.")
def top_command(folder: Path, once: bool, every: float, as_json: bool) -> None:
    """Show a run in the terminal while it goes on: rounds, clients, limits, what went wrong.

    FOLDER has the results of a run, or several runs: then the latest one is shown. The default is
    the folder runs. It works for simulations and deployments, and ends when the run does.
    """
    from rich.console import Console

    from wattfed.server.live.run import LiveRun
    from wattfed.server.live.terminal import show_run, snapshot_lines

    run, screen = LiveRun(folder), Console()
    if as_json:
        console.print_json(run.look().record())
    elif once or not screen.is_terminal:
        click.echo("\n".join(snapshot_lines(run.look())))
    else:
        with suppress(Stopped):
            show_run(run, screen, every)


@click.command(epilog=_WATCH_EXAMPLES)
@_folder
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Name or address to listen at."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8477,
    show_default=True,
    help="Port; 0 takes a free one.",
)
def watch(folder: Path, host: str, port: int) -> None:
    """Serve a web page that follows a run, until Ctrl-C.

    FOLDER is as for `top`. The page is at /, the same as JSON at /run.json, and metrics for
    Prometheus at /metrics. The page is read-only and has no password.
    """
    from wattfed.server.live.run import LiveRun
    from wattfed.server.live.web import WatchServer

    run = LiveRun(folder)
    run.look()  # raises where there is no run
    with WatchServer(run, host, port) as server:
        if server.is_public:
            click.echo("no password: everybody who can reach this port can read the run", err=True)
        click.echo(server.url)
        with suppress(Stopped):
            server.serve_forever()
