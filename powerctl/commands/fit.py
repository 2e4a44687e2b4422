"""`powerctl fit`: a predictor of all modes from a few measured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import json_option, with_table
from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.commands.tables import Measured

_MEAN_OF_NORMAL = 0.8  # mean of |x| over the standard deviation

_EXAMPLES = """\b
Examples:
  powerctl fit run.jsonl --out my-net.json
  powerctl fit table.csv --board orin-nano --kind infer --batch 4 --out my-net.json
  powerctl fit table.csv --reference orin-agx-resnet18-train --reference mine.toml --out my-net.json
"""


@click.command(epilog=_EXAMPLES)
@with_table
@click.option("--reference", "names", multiple=True, help="Start from this one only; repeat.")
@click.option("--no-reference", is_flag=True, help="Start from none.")
@click.option("--out", required=True, help="The predictor's file to write.")
@json_option
def fit(
    measured: Measured, names: tuple[str, ...], no_reference: bool, out: str, as_json: bool
) -> None:
    """Fit a predictor of all modes to a few.

    TABLE is a CSV or a log of powerctl profile. The fit starts from what is known of reference
    workloads: powerctl reference list.
    """
    from powerctl.powertrain.gaussian import GaussianPredictor

    if names and no_reference:
        raise click.UsageError("give --reference or --no-reference, not both")
    board, size = measured.board, measured.usual_batch_size
    predictor = GaussianPredictor(
        board.name,
        l4t=board.l4t,
        kind=measured.kind,
        batch_size=size,
        references=() if no_reference else names or None,
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
    limit_w = round(0.7 * float(expected.power_w.max()))
    click.echo(f"next: powerctl choose --predictor {out} --power-limit {limit_w}")
