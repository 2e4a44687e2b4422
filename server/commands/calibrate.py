"""`wattfed calibrate`: a fleet file beside what runs have really taken."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from powerctl import console
from powerctl.durable import write_output

_EXAMPLES = """\b
Examples:
  wattfed calibrate runs/deployed --fleet my-fleet.toml --out measured.toml
  wattfed calibrate runs/a runs/b --fleet my-fleet.toml --log orin-nano=tegrastats.log
"""


@click.command("calibrate", epilog=_EXAMPLES)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--fleet", metavar="NAME|FILE", help="The fleet file to correct; by default the first run's."
)
@click.option(
    "--log",
    "log_texts",
    multiple=True,
    metavar="BOARD=FILE",
    help="What a board of the fleet drew meanwhile: tegrastats' lines or jtop's CSV; repeat.",
)
@click.option(
    "--interval",
    "interval_s",
    type=console.Quantity("seconds", least=0.01),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two lines of a log that tell no time.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the corrected fleet here.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def calibrate_command(
    runs: tuple[Path, ...],
    fleet: str | None,
    log_texts: tuple[str, ...],
    interval_s: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Tell how far off a fleet file is from what deployed runs took, and correct it.

    RUNS are folders of results. Their reports tell the fixed cost of a round, cold first
    minibatches and whether they came once or in every round; a log of a board's power and
    temperature tells its idle power and how it heats.
    """
    from wattfed.server.run.calibration import UNSEEN, corrected, corrections_of, read_logs
    from wattfed.server.run.results import read_run

    results = [read_run(folder) for folder in runs]
    name = fleet or results[0].config.fleet
    found = corrections_of(name, results, read_logs(log_texts, interval_s))
    if out:
        write_output(out, corrected(name, found, [str(folder) for folder in runs]))
    if as_json:
        console.print_json([{**asdict(one), "written": one.is_written} for one in found])
        return
    console.print_table(
        ("group", "board", "parameter", "in the file", "measured", "from", "to", "n", "source"),
        [
            (
                *(str(one.group), one.board, one.key, one.was),
                *(one.found.mean, one.found.low, one.found.high, one.found.n, one.source),
            )
            for one in found
        ],
    )
    click.echo(f"from, to: 95 % interval. Not seen by reports and module: {', '.join(UNSEEN)}")
    if out:
        click.echo(f"corrected: {out.resolve()}")
