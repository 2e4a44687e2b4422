"""The `powerctl` command: boards, modes, presets, fronts, choices, and the twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.profile import profile_command

if TYPE_CHECKING:
    from powerctl.boards import Board
    from powerctl.modes import ModeArrays
    from powerctl.powertrain.prediction import Prediction

_EXAMPLES = """\b
Examples:
  powerctl boards
  powerctl modes --board orin-agx --cores 4,8,12 --limit 20
  powerctl presets --board orin-nano --l4t 36.4
  powerctl pareto --board orin-agx --workload resnet18-train --plot front.png
  powerctl choose --board orin-nano --workload resnet18-train --power 12
  powerctl twin run --board orin-agx --workload lstm-train --mode 12c/2201/1300/3199
  powerctl twin fit measured.csv --board orin-agx --name my-net --out my-net.toml
"""


@click.group(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Power modes of NVIDIA Jetsons: what there is, what it costs, and which to choose.

    Costs come from a calibrated cost model of the board (the twin), unless --table names a CSV of
    measurements.
    """


cli.add_command(profile_command)


def _board_options(command: Any) -> Any:
    command = click.option("--l4t", help="L4T release, for boards whose clocks changed.")(command)
    return click.option("--board", default="orin-agx", show_default=True, help="Board.")(command)


def _cost_options(command: Any) -> Any:
    for option in (
        click.option("--table", type=click.Path(), help="Measured CSV to use instead."),
        click.option("--batch", type=click.IntRange(1), help="Batch size."),
        click.option("--workload", default="resnet18-train", show_default=True, help="Workload."),
    ):
        command = option(command)
    return _board_options(command)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@cli.command()
@_json_option
def boards(as_json: bool) -> None:
    """List the boards of the catalogue."""
    from powerctl.boards import board_names, load_board, releases

    found = [load_board(name, l4t) for name in board_names() for l4t in releases(name)]
    if as_json:
        console.print_json([_board_json(board) for board in found])
        return
    header = (
        "board",
        "L4T from",
        "modes",
        "cores",
        "CPU MHz",
        "GPU MHz",
        "mem MHz",
        "TFLOP/s",
        "GB/s",
        "title",
    )
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
    console.print_table(header, rows)


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
        "peak_bandwidth": board.peak_bandwidth(),
        "rails": [rail.label for rail in board.rails],
    }


@cli.command()
@_board_options
@click.option("--cores", help="Only these core counts, e.g. 4,8,12.")
@click.option("--per-axis", type=click.IntRange(2), help="A sub-grid of so many values per axis.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Rows shown.")
@_json_option
def modes(
    board: str, l4t: str | None, cores: str | None, per_axis: int | None, limit: int, as_json: bool
) -> None:
    """List the axes of a board and its power modes."""
    from powerctl.boards import load_board
    from powerctl.errors import InvalidInput

    space = load_board(board, l4t).space
    if per_axis:
        space = space.thinned(per_axis)
    if cores:
        try:
            wanted = [int(part) for part in cores.split(",")]
        except ValueError:
            raise InvalidInput(f"cannot read --cores {cores!r}; write e.g. 4,8,12") from None
        space = space.subspace(cores=wanted)
    if as_json:
        axes = {"cores": space.cores, "cpu_khz": space.cpu_khz, "gpu_hz": space.gpu_hz}
        listed = [mode.values for mode in space]
        console.print_json({**axes, "mem_hz": space.mem_hz, "n_modes": len(space), "modes": listed})
        return
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


@cli.command()
@_board_options
@_json_option
def presets(board: str, l4t: str | None, as_json: bool) -> None:
    """List nvpmodel's predefined modes of a board."""
    from powerctl.boards import load_board

    found = load_board(board, l4t).presets
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
    if len({p.tpc_pg_mask for p in found}) > 1:
        click.echo("Changing between presets of different TPC masks needs a reboot.")


@cli.command()
@_cost_options
@click.option("--cost", type=click.Choice(["energy", "power"]), default="energy", show_default=True)
@click.option(
    "--points",
    type=click.IntRange(2),
    default=12,
    show_default=True,
    help="Points to thin the front to.",
)
@click.option("--plot", type=click.Path(), help="Write a PNG of the modes and their front.")
@_json_option
def pareto(
    board: str,
    l4t: str | None,
    workload: str,
    batch: int | None,
    table: str | None,
    cost: str,
    points: int,
    plot: str | None,
    as_json: bool,
) -> None:
    """Show the time-energy or time-power front of a board's modes for a workload."""
    from powerctl.pareto import pareto_front, thinned

    found, costs, origin = _costs(board, l4t, workload, batch, table)
    values = costs.energy_j if cost == "energy" else costs.power_w
    front = pareto_front(costs.time_s, values)
    shown = thinned(front, costs.time_s, points)
    if plot:
        from powerctl.plots import plot_front

        plot_front(costs, front, cost, f"{workload} on {board}: {origin}", Path(plot))
    rows = [_choice(found, costs, int(i)) for i in shown]
    if as_json:
        console.print_json({"origin": origin, "front_size": len(front), "front": rows})
        return
    _print_choices(rows)
    among = f"{len(shown)} of {len(front)} modes on the front, of {len(costs.time_s):,}"
    click.echo(f"{among}; {origin}")
    if plot:
        click.echo(f"plot: {plot}")


@cli.command()
@_cost_options
@click.option("--power", "power_w", type=float, help="Fastest mode within so many watts.")
@click.option("--deadline", "deadline_s", type=float, help="Least energy within so many seconds.")
@click.option("--slowdown", type=float, help="Least energy at most so much slower: 0.05 is 5 %.")
@_json_option
def choose(
    board: str,
    l4t: str | None,
    workload: str,
    batch: int | None,
    table: str | None,
    power_w: float | None,
    deadline_s: float | None,
    slowdown: float | None,
    as_json: bool,
) -> None:
    """Choose the mode for one minibatch: by power limit, by deadline, or by slow-down."""
    from powerctl import pareto as question

    given = [value for value in (power_w, deadline_s, slowdown) if value is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --power, --deadline, --slowdown")
    found, costs, origin = _costs(board, l4t, workload, batch, table)
    if power_w is not None:
        index = question.fastest_within(costs.time_s, costs.power_w, power_w)
    elif deadline_s is not None:
        index = question.least_energy_within(costs.time_s, costs.power_w, deadline_s)
    else:
        index = question.least_energy_within_slowdown(costs.time_s, costs.power_w, given[0])
    rows = [_choice(found, costs, index)]
    if as_json:
        console.print_json({"origin": origin, **rows[0]})
        return
    _print_choices(rows)
    fastest = int(costs.time_s.argmin())
    saved = 1 - rows[0]["energy_j"] / float(costs.energy_j[fastest])
    slower = rows[0]["time_s"] / float(costs.time_s[fastest]) - 1
    click.echo(f"against the fastest mode: {saved:+.0%} energy saved, {slower:+.0%} time; {origin}")


def _costs(
    board: str, l4t: str | None, workload: str, batch: int | None, table: str | None
) -> tuple[ModeArrays, Prediction, str]:
    """Modes, their costs, and in words where those come from."""
    import numpy as np

    from powerctl.boards import load_board
    from powerctl.errors import InvalidInput
    from powerctl.measurement import MeasurementTable
    from powerctl.powertrain.prediction import Prediction
    from powerctl.powertrain.signature import SignaturePredictor
    from powerctl.workload import load_workload

    the_board = load_board(board, l4t)
    if table is None:
        job = load_workload(workload)
        job = job.with_batch_size(batch) if batch else job
        predicted = SignaturePredictor(the_board, job).predict(the_board.space.arrays)
        return the_board.space.arrays, predicted, "predicted by the twin's cost model"
    measured = MeasurementTable.read(table, the_board.space)
    if measured.batch_size is not None:
        sizes = np.unique(measured.batch_size).tolist()
        if batch not in sizes:
            raise InvalidInput(f"{table} has batch sizes {sizes}; choose one with --batch")
        measured = measured.take(np.flatnonzero(measured.batch_size == batch))
    zeros = np.zeros(len(measured))
    exact = Prediction(measured.time_s, measured.power_w, zeros, zeros)
    return measured.modes, exact, f"measured, {Path(table).name}"


def _choice(found: ModeArrays, costs: Prediction, index: int) -> dict[str, Any]:
    return {
        "mode": str(found.mode(index)),
        "time_s": float(costs.time_s[index]),
        "power_w": float(costs.power_w[index]),
        "energy_j": float(costs.energy_j[index]),
    }


def _print_choices(rows: list[dict[str, Any]]) -> None:
    console.print_table(
        ("mode", "time (ms)", "power (W)", "energy (J)"),
        [(r["mode"], 1e3 * r["time_s"], r["power_w"], r["energy_j"]) for r in rows],
    )


@cli.group()
def twin() -> None:
    """The simulated board: run it, or fit a workload to measurements."""


@twin.command("run")
@_board_options
@click.option("--workload", default="resnet18-train", show_default=True, help="Workload.")
@click.option("--mode", default="maxn", show_default=True, help="Mode, e.g. 12c/2201/1300/3199.")
@click.option("--minibatches", type=click.IntRange(1), default=40, show_default=True)
@click.option("--unit", type=int, default=0, help="Which unit of the board.")
@click.option("--seed", type=int, default=0, help="Of the noise.")
@_json_option
def twin_run(
    board: str,
    l4t: str | None,
    workload: str,
    mode: str,
    minibatches: int,
    unit: int,
    seed: int,
    as_json: bool,
) -> None:
    """Run minibatches on the twin and show what they took beside what was predicted."""
    from powerctl.boards import load_board
    from powerctl.devices.twin import Twin
    from powerctl.modes import ModeArrays
    from powerctl.powertrain.signature import SignaturePredictor
    from powerctl.workload import load_workload

    the_board, job = load_board(board, l4t), load_workload(workload)
    device = Twin(the_board, unit=unit, random_state=seed)
    chosen = the_board.space.parse(mode)
    device.apply(chosen)
    start_s, start_j = device.now(), device.energy_j()
    times = [device.execute(job) for _ in range(minibatches)]
    time_s, energy_j = device.now() - start_s, device.energy_j() - start_j
    predicted = SignaturePredictor(the_board, job).predict(ModeArrays.of([chosen]))
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
    console.print_table(
        ("", "time (ms)", "power (W)"),
        [
            (f"twin, mean of {minibatches}", 1e3 * result["time_s"], result["power_w"]),
            ("predicted", 1e3 * result["predicted_time_s"], result["predicted_power_w"]),
        ],
    )


@twin.command("fit")
@_board_options
@click.argument("table", type=click.Path())
@click.option("--name", required=True, help="Name of the workload.")
@click.option("--kind", type=click.Choice(["train", "infer"]), default="train", show_default=True)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Batch size, where the table does not say.",
)
@click.option("--prior", help="A workload to start from; helps when few modes were measured.")
@click.option("--parameters", type=click.IntRange(0), default=0, help="Of the model.")
@click.option("--out", type=click.Path(), required=True, help="The workload's .toml to write.")
def twin_fit(
    board: str,
    l4t: str | None,
    table: str,
    name: str,
    kind: str,
    batch: int,
    prior: str | None,
    parameters: int,
    out: str,
) -> None:
    """Fit a workload's signature to a TABLE of measurements, five modes or five thousand."""
    from powerctl.boards import load_board
    from powerctl.calibration import errors_pct, fit_signature
    from powerctl.measurement import MeasurementTable
    from powerctl.workload import Workload, load_workload, write_workload

    the_board = load_board(board, l4t)
    measured = MeasurementTable.read(table, the_board.space)
    start = load_workload(prior).signature if prior else None
    signature = fit_signature(the_board.hardware, measured, batch, prior=start)
    time_error, power_error = errors_pct(the_board.hardware, signature, measured, batch)
    source = f"fitted to {len(measured):,} measurements on {the_board.name} ({Path(table).name})"
    job = Workload(name, kind, batch, signature, name, source, parameters)
    write_workload(job, Path(out))
    click.echo(
        f"{out}: mean error on the {len(measured):,} measurements "
        f"{time_error:.1f} % in time, {power_error:.1f} % in power"
    )


@twin.command("estimate")
@click.option("--name", required=True, help="Name of the workload.")
@click.option("--flop-per-sample", type=float, required=True, help="Training: of all passes.")
@click.option("--bytes-per-sample", type=float, required=True, help="DRAM traffic, likewise.")
@click.option("--kind", type=click.Choice(["train", "infer"]), default="train", show_default=True)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Batch size.")
@click.option("--parameters", type=click.IntRange(0), default=0, help="Of the model.")
@click.option("--out", type=click.Path(), required=True, help="The workload's .toml to write.")
def twin_estimate(
    name: str,
    flop_per_sample: float,
    bytes_per_sample: float,
    kind: str,
    batch: int,
    parameters: int,
    out: str,
) -> None:
    """Estimate a workload's signature from its FLOP and bytes alone, to a factor of about 1.5."""
    from powerctl.calibration import signature_from_counts
    from powerctl.workload import Workload, write_workload

    signature = signature_from_counts(flop_per_sample, bytes_per_sample)
    source = f"estimated from {flop_per_sample:.4g} FLOP and {bytes_per_sample:.4g} bytes a sample"
    write_workload(Workload(name, kind, batch, signature, name, source, parameters), Path(out))
    click.echo(f"{out}: {source}; measure a few modes and refine it with: powerctl twin fit")


def main() -> None:
    """Entry point."""
    console.run(cli)
