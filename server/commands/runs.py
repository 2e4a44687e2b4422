"""`wattfed runs`: the runs that a folder holds: list, compare, export, delete."""

from __future__ import annotations

import math
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from wattfed.server.comparison.stored import Stored

_EXAMPLES = """\b
Examples:
  wattfed runs list
  wattfed runs compare digits-pace-slack-seed0 digits-random-maxn-seed0
  wattfed runs export comparison --out rounds.parquet
  wattfed runs --in /data/runs delete old
"""
_HEADER = (
    "run",
    "began",
    "state",
    "what",
    "rounds",
    "value",
    "time (s)",
    "energy (kJ)",
    "size (MB)",
)


@click.group("runs", epilog=_EXAMPLES)
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path),
    default="runs",
    show_default=True,
    help="Folder of results.",
)
@click.pass_context
def runs_group(context: click.Context, folder: Path) -> None:
    """List, compare, export or delete the runs and comparisons in a folder.

    NAME is one of the folders that `list` prints.
    """
    context.obj = folder


def _complete(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """What the folder holds, for the shell."""
    from click.shell_completion import CompletionItem

    from powerctl.errors import PowerctlError
    from wattfed.server.comparison.stored import stored_in

    folder = context.parent.params.get("folder") if context.parent else None
    try:
        names = [one.name for one in stored_in(Path(folder or "runs"))]
    except PowerctlError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


_names = click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete
)


@runs_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.pass_obj
def list_command(folder: Path, as_json: bool) -> None:
    """List runs and comparisons: progress, time, energy and size; the latest comes last."""
    from wattfed.server.comparison.stored import stored_in
    from wattfed.server.run.history import finite

    found: list[dict[str, Any]] = [
        {"name": one.name, "began_unix_s": one.began_s, "bytes": one.size_bytes, **one.told()}
        for one in stored_in(folder)
    ]
    if as_json:
        console.print_json([finite(one) for one in found])
        return
    console.print_table(_HEADER, [_row(one) for one in found])
    total = sum(one["bytes"] for one in found)
    click.echo(f"{len(found)} in {folder.resolve()}, {total / 1e6:,.1f} MB")


@runs_group.command("compare")
@_names
@click.pass_obj
def compare_runs(folder: Path, names: tuple[str, ...]) -> None:
    """Compare the first run with each of the others, as `simulate --against` does."""
    from wattfed.server.comparison.stored import comparable, config_differences, named_in
    from wattfed.server.run.run_progress import print_results

    results = comparable(named_in(folder, names))
    for line in config_differences(results):
        click.echo(line)
    print_results(results)


@runs_group.command("export")
@_names
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: .parquet or .csv.",
)
@click.option(
    "--table",
    type=click.Choice(("rounds", "reports")),
    default="rounds",
    show_default=True,
    help="One row for each round, or for each client in each round.",
)
@click.pass_obj
def export(folder: Path, names: tuple[str, ...], out: Path, table: str) -> None:
    """Write the rounds of runs, or of a comparison's finished runs, as one table (with pandas).

    Needs the extra `pandas`, and for Parquet `parquet`. From Python: wattfed.read_run(FOLDER)
    .to_pandas().
    """
    from powerctl.durable import write_output
    from powerctl.errors import InvalidInput
    from wattfed.server.comparison.stored import frame_of, named_in

    kinds = {".parquet": "to_parquet", ".csv": "to_csv"}
    if out.suffix not in kinds:
        raise InvalidInput(f"--out {out}: its name ends with one of {', '.join(kinds)}")
    frame, content = frame_of(named_in(folder, names), table), BytesIO()
    try:
        getattr(frame, kinds[out.suffix])(content, index=False)
    except ImportError:
        raise InvalidInput(f"--out {out}: Parquet needs pip install 'wattfed[parquet]'") from None
    write_output(out, content.getvalue())
    click.echo(f"{len(frame):,} rows: {out.resolve()}")


@runs_group.command("delete")
@_names
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete(folder: Path, names: tuple[str, ...], yes: bool) -> None:
    """Delete runs and comparisons with all their files, after asking.

    A run that another process is writing, or that is not in the folder, is refused.
    """
    from wattfed.server.comparison.stored import named_in

    chosen = named_in(folder, names)
    for one in chosen:
        click.echo(f"{one.path.resolve()}, {one.size_bytes / 1e6:,.1f} MB{_words(one)}")
    if not yes:
        click.confirm("Delete?", abort=True)
    for one in chosen:
        one.delete()
    click.echo(f"deleted: {len(chosen)}")


def _words(one: Stored) -> str:
    told = one.told()
    return f", {told['state']}, {told['what']}"


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    value, metric = one.get("value"), one.get("metric", "")
    return (
        one["name"],
        time.strftime("%Y-%m-%d %H:%M", time.localtime(one["began_unix_s"])),
        one["state"],
        one["what"],
        one.get("rounds", "-"),
        f"{metric} {value:.4g}" if value is not None else "-",
        float(one.get("time_s", math.nan)),
        float(one.get("energy_j", math.nan)) / 1e3,
        one["bytes"] / 1e6,
    )
