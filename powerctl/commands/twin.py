"""`powerctl twin`: the simulated board, run by itself, and fitted to measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import (
    json_option,
    kind_option,
    seed_option,
    with_board,
    with_table,
)
from powerctl.quantities import time_unit

if TYPE_CHECKING:
    from powerctl.boards import Board
    from powerctl.commands.tables import Measured


@click.group()
def twin() -> None:
    """The simulated board: run it, or fit a workload to measurements."""


@twin.command("run")
@with_board
@click.option("--workload", default="resnet18-train", show_default=True, help="Workload.")
@click.option("--mode", default="maxn", show_default=True, help="Mode, e.g. 12c/2201/1300/3199.")
@click.option("--minibatches", type=click.IntRange(1), default=40, show_default=True)
@click.option("--unit", type=int, default=0, help="Which unit of the board.")
@seed_option("Of the noise.")
@json_option
def run_on_twin(
    board: Board, workload: str, mode: str, minibatches: int, unit: int, seed: int, as_json: bool
) -> None:
    """Run minibatches on the twin and show what they took beside what was predicted."""
    from powerctl.devices.twin import Twin
    from powerctl.modes import ModeArrays
    from powerctl.powertrain.correction import SignaturePredictor
    from powerctl.workload import load_workload

    job = load_workload(workload)
    device = Twin(board, unit=unit, random_state=seed)
    chosen = board.space.parse(mode)
    device.apply(chosen)
    start_s, start_j = device.now(), device.energy_j()
    times = [device.execute(job) for _ in range(minibatches)]
    time_s, energy_j = device.now() - start_s, device.energy_j() - start_j
    predicted = SignaturePredictor(board, job).predict(ModeArrays.of([chosen]))
    result: dict[str, Any] = {
        "mode": str(chosen),
        "minibatches": minibatches,
        "time_s": sum(times) / minibatches,
        "power_w": energy_j / time_s,
        "predicted_time_s": float(predicted.time_s[0]),
        "predicted_power_w": float(predicted.power_w[0]),
    }
    if as_json:
        console.print_json(result)
        return
    shown_in, per_s = time_unit((result["time_s"], result["predicted_time_s"]))
    console.print_table(
        ("", f"time ({shown_in})", "power (W)"),
        [
            (f"twin, mean of {minibatches}", per_s * result["time_s"], result["power_w"]),
            ("predicted", per_s * result["predicted_time_s"], result["predicted_power_w"]),
        ],
    )


@twin.command("fit")
@with_table
@click.option("--name", required=True, help="Name of the workload.")
@click.option("--prior", help="A workload to start from; helps when few modes were measured.")
@click.option("--parameters", type=click.IntRange(0), default=0, help="Of the model.")
@click.option("--out", type=click.Path(), required=True, help="The workload's .toml to write.")
def fit_workload(
    measured: Measured, name: str, prior: str | None, parameters: int, out: str
) -> None:
    """Fit a workload's signature to a TABLE of measurements, five modes or five thousand."""
    from powerctl.calibration import errors_pct, fit_signature
    from powerctl.workload import Workload, load_workload, write_workload

    board, table, batch = measured.board, measured.table, measured.usual_batch_size
    start = load_workload(prior).signature if prior else None
    signature = fit_signature(board.hardware, table, batch, prior=start)
    time_error, power_error = errors_pct(board.hardware, signature, table, batch)
    source = f"fitted to {len(table):,} measurements on {board.name} ({table.source})"
    job = Workload(name, measured.kind, batch, signature, name, source, parameters)
    write_workload(job, Path(out))
    click.echo(
        f"{out}: mean error on the {len(table):,} measurements "
        f"{time_error:.1f} % in time, {power_error:.1f} % in power"
    )


@twin.command("estimate")
@click.option("--name", required=True, help="Name of the workload.")
@click.option("--flop-per-sample", type=float, required=True, help="Of inference.")
@click.option("--bytes-per-sample", type=float, required=True, help="Of DRAM, of inference.")
@click.option("--weight-bytes", type=float, default=0.0, help="Of a minibatch of any size.")
@click.option("--tokens", type=click.IntRange(1), help="Of a text; without, samples are images.")
@kind_option(default="train", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Batch size.")
@click.option("--parameters", type=click.IntRange(0), default=0, help="Of the model.")
@click.option("--out", type=click.Path(), required=True, help="The workload's .toml to write.")
def estimate_workload(
    name: str,
    flop_per_sample: float,
    bytes_per_sample: float,
    weight_bytes: float,
    tokens: int | None,
    kind: str,
    batch: int,
    parameters: int,
    out: str,
) -> None:
    """Estimate a workload from its FLOP and bytes; with a model at hand: powerctl explain --out."""
    from powerctl.pagoda.estimate import estimate_from_totals
    from powerctl.workload import Workload, write_workload

    totals = (flop_per_sample, weight_bytes, bytes_per_sample)
    signature = estimate_from_totals(kind, *totals, tokens=tokens)
    source = f"estimated from {flop_per_sample:.4g} FLOP and {bytes_per_sample:.4g} bytes a sample"
    write_workload(Workload(name, kind, batch, signature, name, source, parameters), Path(out))
    click.echo(f"{out}: {source}; measure a few modes and refine it with: powerctl twin fit")
