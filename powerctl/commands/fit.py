"""`powerctl fit` and `reference`: predictors, and what they start from, made of measurements."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import json_option, with_references, with_table
from powerctl.fields import check_name
from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.commands.tables import Measured
    from powerctl.powertrain.reference import Reference

_MEAN_OF_NORMAL = 0.8  # sqrt(2 / pi): mean of |x| over its standard deviation, of a normal x

_EXAMPLES = """\b
Examples:
  powerctl fit run.jsonl --out my-net.json
  powerctl fit table.csv --board orin-nano --kind infer --batch 4 --out my-net.json
  powerctl fit table.csv --reference orin-agx-resnet18-train --reference mine.toml --out my-net.json
"""


@click.command(epilog=_EXAMPLES)
@with_table
@with_references
@click.option("--out", required=True, help="The predictor's file to write.")
@json_option
def fit(measured: Measured, references: tuple[str, ...] | None, out: str, as_json: bool) -> None:
    """Fit a predictor of all modes to a few.

    TABLE is a CSV or a log of powerctl profile. The fit starts from what is known of reference
    workloads: powerctl reference list.
    """
    from powerctl.powertrain.gaussian import GaussianPredictor

    board, size = measured.board, measured.usual_batch_size
    predictor = GaussianPredictor(
        board.name,
        l4t=board.l4t,
        kind=measured.kind,
        batch_size=size,
        references=references,
    )
    with Progress("fitting"):
        predictor.fit(measured.table)
        predictor.save(out)
        expected = predictor.predict(board.space.arrays)
    result: dict[str, Any] = {
        "predictor": out,
        "board": board.name,
        "kind": measured.kind,
        "batch_size": size,
        "measurements": len(measured.table),
        "references": [reference.name for reference in predictor.references_],
        "expected_error_pct": [
            round(100 * _MEAN_OF_NORMAL * float(std.mean()), 2)
            for std in (expected.time_std, expected.power_std)
        ],
        "left_out_error_pct": [round(error, 2) for error in predictor.loo_error_pct_],
        "unsupported": [
            str(measured.table.modes.mode(row)) for row in predictor.unsupported_.tolist()
        ],
    }
    if as_json:
        console.print_json(result)
        return
    click.echo(
        f"{out}: fitted to {result['measurements']} measurements on {board.label}, "
        f"{measured.kind}, batch {size}"
    )
    click.echo(f"references: {', '.join(result['references']) or 'none'}")
    console.print_table(
        ("mean error", "time %", "power %"),
        [
            (f"expected of all {len(board.space):,} modes", *result["expected_error_pct"]),
            ("of each measured mode, left out", *result["left_out_error_pct"]),
        ],
    )
    if result["unsupported"]:
        click.echo(
            "five deviations or more off what all others say, so they count little: "
            f"{', '.join(result['unsupported'])}; measure them again"
        )
    limit_w = round(0.7 * float(expected.power_w.max()))
    click.echo(f"next: powerctl choose --predictor {out} --power-limit {limit_w}")


@click.group()
def reference() -> None:
    """Build and list what predictions start from."""


@reference.command("build")
@with_table
@click.option("--name", required=True, help="Name of the reference.")
@click.option("--source", help="Where the table is from.", show_default="its file name")
@click.option("--out", show_default="among your own references", help="The .toml to write.")
@click.option(
    "--parameters-only",
    is_flag=True,
    help="Leave out how each single mode deviates: a reference to publish.",
)
def build_from_table(
    measured: Measured, name: str, source: str | None, out: str | None, parameters_only: bool
) -> None:
    """Make a reference of a TABLE of many modes: a CSV, or a log of powerctl profile."""
    from powerctl.powertrain.reference import user_folder, write_reference
    from powerctl.powertrain.reference_fit import build_reference

    check_name(name, "the name of a reference")
    table = measured.table
    with Progress("fitting"):
        built = build_reference(
            table,
            measured.board,
            name=name,
            kind=measured.kind,
            batch_size=measured.usual_batch_size,
            source=source or table.source,
        )
    if parameters_only:
        built = replace(built, residual=None)
    path = user_folder() / f"{name}.toml" if out is None else Path(out)
    write_reference(built, path)
    click.echo(
        f"{path}: {name}, from {len(table):,} measurements on {built.board}; the cost model's "
        f"mean error {built.time_error_pct:.1f} % in time, {built.power_error_pct:.1f} % in power"
    )
    if out is None:
        click.echo("used by every powerctl fit from now on")
    else:
        click.echo(f"use it with: powerctl fit TABLE --reference {path}")


@reference.command("list")
@json_option
def list_references(as_json: bool) -> None:
    """List the references that there are."""
    from powerctl.powertrain.reference import load_reference, reference_names

    found = [load_reference(name) for name in reference_names()]
    if as_json:
        console.print_json([_summary(item) for item in found])
        return
    header = ("reference", "board", "kind", "batch", "rows", "time %", "power %", "source")
    console.print_table(header, [tuple(_summary(item).values()) for item in found])
    click.echo("time %, power %: mean error of the cost model on the reference's own rows")


@reference.command("show")
@click.argument("name")
@json_option
def show_reference(name: str, as_json: bool) -> None:
    """Show the reference of a NAME, or of a .toml file."""
    from powerctl.powertrain.reference import load_reference

    found = load_reference(name)
    nested = {"signature": asdict(found.signature), "hardware": asdict(found.hardware)}
    if as_json:
        console.print_json(_summary(found) | nested)
        return
    for key, value in _summary(found).items():
        click.echo(f"{key:>15}: {console.cell(value)}")
    for key, values in nested.items():
        console.print_table((key, "value"), list(values.items()))


def _summary(found: Reference) -> dict[str, Any]:
    return {
        "name": found.name,
        "board": found.board,
        "kind": found.kind,
        "batch_size": found.batch_size,
        "n_rows": found.n_rows,
        "time_error_pct": found.time_error_pct,
        "power_error_pct": found.power_error_pct,
        "source": found.source,
    }
