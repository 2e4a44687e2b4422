"""`powerctl roofline`: the ceilings that a device reaches, measured; and the picture of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import (
    check_folder_of,
    input_option,
    json_option,
    kind_option,
    with_board,
)
from powerctl.console import Quantity, WholeNumbers
from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.accelerator import Accelerator
    from powerctl.boards import Board
    from powerctl.measurement import MeasurementTable
    from powerctl.modes import PowerMode
    from powerctl.pagoda.ceilings import Ceilings
    from powerctl.pagoda.roofline_plot import WorkloadPoint

_EXAMPLES = """\b
Examples:
  powerctl roofline measure
  powerctl roofline measure --accelerator cpu --threads 1 --json
  powerctl roofline measure --accelerator cuda --dtype float16 --out half.json
  powerctl roofline measure --each
On a Jetson, in the power mode that it is in, with energy:
  powerctl roofline measure --board orin-agx --seconds 3 --out maxn.json
"""


@click.group()
def roofline() -> None:
    """Ceilings of a device: FLOP and bytes per second, and per joule."""


@roofline.command("measure", epilog=_EXAMPLES)
@click.option(
    "--accelerator",
    "--device",
    "on",
    metavar="auto|cpu|cuda[:N]",
    help="What runs the kernels; auto is the GPU where there is one.  [default: auto]",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "float64", "int8"]),
    default="float32",
    show_default=True,
    help="Type of the numbers.",
)
@click.option("--tf32", is_flag=True, help="Let tensor cores round float32 products.")
@click.option(
    "--each", is_flag=True, help="Instead: every number format that networks run in there."
)
@click.option(
    "--seconds",
    type=Quantity("seconds"),
    default=0.5,
    show_default=True,
    help="How long each kernel runs; energy needs 1 or more.",
)
@click.option("--threads", type=click.IntRange(1), help="Of the CPU.", show_default="all cores")
@click.option("--board", "board_name", help="Compare with this board's peaks.")
@click.option(
    "--array-mib",
    type=click.IntRange(1),
    show_default="4 x the last cache, at least 64",
    help="Size of the arrays, which must not fit a cache.",
)
@click.option("--out", type=click.Path(dir_okay=False), help="Write what was measured as JSON.")
@json_option
def measure_rooflines(
    on: str | None,
    dtype: str,
    tf32: bool,
    each: bool,
    seconds: float,
    threads: int | None,
    board_name: str | None,
    array_mib: int | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Measure what the GPU or CPU of this machine reaches.

    Kernels of known FLOP and bytes run, from those that the memory bounds to those that arithmetic
    does: copies, and matrix products of growing inner dimension. A meter of energy is used where
    there is one: a Jetson's power rails, NVML, RAPL.
    """
    from powerctl.accelerator import Accelerator
    from powerctl.boards import load_board
    from powerctl.pagoda.microbenchmarks import formats_of

    board = load_board(board_name) if board_name else None
    check_folder_of(out)
    there = Accelerator.of(on) if on else Accelerator.here()
    formats = formats_of(there) if each else [(dtype, tf32)]
    all_found = []
    for name, rounded in formats:
        found = _measured(there, name, rounded, array_mib, seconds=seconds, threads=threads)
        if board:
            found = replace(found, vendor=_peaks_of(board, found))
        if out:
            found.save(_path_of(out, found) if each else out)
        all_found.append(found)
    if as_json:
        console.print_json([_as_json(one) for one in all_found] if each else _as_json(found))
        return
    if each:
        _print_each(all_found)
    else:
        _print(found)
    if out:
        paths = [str(_path_of(out, one)) for one in all_found] if each else [out]
        click.echo(f"saved in {', '.join(paths)}")


_PLOT_EXAMPLES = """\b
Examples:
  powerctl roofline plot resnet50 mobilenetv3 --batch 1,16 --out rooflines.png
  powerctl roofline plot resnet18 --kind train --mode maxn --mode MODE_30W --mode 4c/729/318/665
What was measured, filled, beside the rooflines:
  powerctl roofline plot resnet50 --batch 1,16,64 --table resnet50.csv --mode maxn
"""


@roofline.command("plot", epilog=_PLOT_EXAMPLES)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@with_board
@input_option
@kind_option(default="infer", show_default=True)
@click.option(
    "--batch", "sizes", type=WholeNumbers(), default="1,16", show_default=True, help="Batch sizes."
)
@click.option(
    "--mode", "listed", multiple=True, show_default="maxn and the presets", help="A mode; repeat."
)
@click.option("--table", help="Measurements of the one MODEL, drawn where they hold a mode.")
@click.option("--out", default="rooflines.png", show_default=True, help="The PNG to write.")
def plot_models(
    models: tuple[str, ...],
    board: Board,
    input: str | None,
    kind: str,
    sizes: tuple[int, ...],
    listed: tuple[str, ...],
    table: str | None,
    out: str,
) -> None:
    """Draw time and energy rooflines of modes, and where MODELs stand in them.

    The rooflines are the board's peaks and its power constants; the workloads are estimated from
    their counts, or measured.
    """
    from powerctl.measurement import MeasurementTable
    from powerctl.modes import ModeArrays
    from powerctl.pagoda.roofline_plot import plot_rooflines
    from powerctl.pagoda.rooflines import board_rooflines

    if table and len(models) != 1:
        raise click.UsageError("--table is of one MODEL: name it, and no other")
    names = listed or ("maxn", *(preset.name for preset in board.presets))
    modes: dict[PowerMode, str] = {}
    for name in names:
        modes.setdefault(board.mode(name), name)
    facts = MeasurementTable.read(table, board.space) if table else None
    points = [
        point
        for model in models
        for size in sizes
        for point in _points(model, input, kind, size, board, list(modes), facts)
    ]
    labels = [
        f"{name}  {mode}" if name[:1].isalpha() else str(mode) for mode, name in modes.items()
    ]
    rooflines = board_rooflines(board, ModeArrays.of(list(modes)))
    what = f": {', '.join(models)}, {kind}" if models else ""
    plot_rooflines(Path(out), rooflines, labels, points, f"{board.title}{what}")
    click.echo(f"{out}: rooflines of {len(modes)} modes, {len(points)} workload points")


def _points(
    model: str,
    input_text: str | None,
    kind: str,
    size: int,
    board: Board,
    modes: list[PowerMode],
    table: MeasurementTable | None,
) -> list[WorkloadPoint]:
    """A model in each mode: measured where the table holds the mode, else estimated."""
    from powerctl.cost_model import minibatch_cost
    from powerctl.pagoda.counted import CountedModel
    from powerctl.pagoda.roofline_plot import WorkloadPoint

    counted = CountedModel.of(model, input_text, kind)
    counts = counted.counts(size)
    points = []
    for i, mode in enumerate(modes):
        row = None if table is None else table.find(mode, size)
        if table is None or row is None:
            cost = minibatch_cost(board.hardware, counted.signature, *mode.values, size)
            time_s, power_w = float(cost.time_s), float(cost.power_w)
        else:
            time_s, power_w = float(table.time_s[row]), float(table.power_w[row])
        points.append(
            WorkloadPoint(
                workload=f"{model}, batch {size}",
                mode=i,
                flop=counts.flop,
                dram_bytes=counts.dram_bytes,
                time_s=time_s,
                energy_j=time_s * power_w,
                measured=row is not None,
            )
        )
    return points


def _measured(
    there: Accelerator, dtype: str, tf32: bool, array_mib: int | None, **settings: Any
) -> Ceilings:
    """The ceilings of one number format, with the meter that there is and progress shown."""
    from powerctl.devices.meters import open_meter
    from powerctl.pagoda.microbenchmarks import DTYPES, gpu_uuid, measure_ceilings, sizes_for

    with open_meter(there.device.type, gpu_uuid(there)) as meter, Progress("kernels") as shown:
        return measure_ceilings(
            there,
            dtype=dtype,
            tf32=tf32,
            sizes=sizes_for(there, DTYPES[dtype], array_mib),
            meter=meter,
            progress=lambda name, done, total: shown.update(done, total=total, note=name),
            **settings,
        )


def _path_of(out: str, found: Ceilings) -> Path:
    """The file of one of several number formats."""
    path = Path(out)
    return path.with_stem(f"{path.stem}-{found.dtype}")


def _print_each(all_found: list[Ceilings]) -> None:
    """What each number format reaches, a line each, and of what it is how much."""
    first = all_found[0]
    click.echo(f"{first.hardware} ({first.device}); {first.meter}")
    rows = [
        (
            found.dtype,
            found.peak_flops / 1e9,
            "" if found.vendor.flops is None else found.vendor.flops / 1e9,
            found.peak_bandwidth / 1e9,
            found.peak_flops / found.peak_bandwidth,
        )
        for found in all_found
    ]
    header = ("format", "G operations/s", "of the vendor's", "GB/s", "balance, operations/B")
    console.print_table(header, rows)
    for source in dict.fromkeys(found.vendor.source for found in all_found if found.vendor.source):
        click.echo(f"vendor: {source}")


def _peaks_of(board: Board, found: Ceilings) -> Any:
    """The board's peaks; those of its GPU do not hold for a CPU."""
    from powerctl.pagoda.vendor import board_peaks

    peaks = board_peaks(board, found.dtype)
    if found.device == "cpu":
        own = found.vendor
        sources = (peaks.source, f"CPU: {own.source}" if own.source else "")
        return replace(peaks, flops=own.flops, source="; ".join(filter(None, sources)))
    return peaks


def _as_json(found: Ceilings) -> dict[str, Any]:
    energy = found.energy
    return {
        "device": found.device,
        "hardware": found.hardware,
        "dtype": found.dtype,
        "threads": found.threads,
        "meter": found.meter,
        "peak_flops": found.peak_flops,
        "peak_bandwidth": found.peak_bandwidth,
        "vendor_flops": found.vendor.flops,
        "vendor_bandwidth": found.vendor.bandwidth,
        "vendor_source": found.vendor.source,
        "energy": None if energy is None else energy._asdict(),
        "kernels": [
            {
                "name": run.name,
                "kind": run.kind,
                "flop": run.flop,
                "dram_bytes": run.dram_bytes,
                "time_s": run.time_s,
                "energy_j": run.energy_j,
                "of_roofline": float(attained),
            }
            for run, attained in zip(found.runs, found.attained(found.runs), strict=True)
        ],
    }


def _print(found: Ceilings) -> None:
    plural = "" if found.threads == 1 else "s"
    threads = f", {found.threads} thread{plural}" if found.device == "cpu" else ""
    click.echo(f"{found.hardware} ({found.device}{threads}), {found.dtype}; {found.meter}")
    metered = found.energy is not None
    rows: list[list[object]] = []
    for run, attained in zip(found.runs, found.attained(found.runs), strict=True):
        row: list[object] = [run.name, run.intensity, run.flops / 1e9, run.bandwidth / 1e9]
        row += [1e3 * run.time_s, round(100 * attained)]
        rows.append([*row, run.energy_j] if metered else row)
    header = ["kernel", "FLOP/B", "GFLOP/s", "GB/s", "ms", "% of roofline"]
    console.print_table([*header, "J"] if metered else header, rows)
    click.echo(
        f"reached: {_against(found.peak_flops, found.vendor.flops, 'GFLOP/s')}, "
        f"{_against(found.peak_bandwidth, found.vendor.bandwidth, 'GB/s')}; "
        f"they balance at {found.peak_flops / found.peak_bandwidth:.3g} FLOP/B"
    )
    if found.vendor.source:
        click.echo(f"vendor: {found.vendor.source}")
    _print_fit(found)


def _against(reached: float, vendor: float | None, unit: str) -> str:
    """A peak, and how much of the vendor's it is."""
    share = f" ({100 * reached / vendor:.0f} % of {vendor / 1e9:.4g})" if vendor else ""
    return f"{reached / 1e9:.4g} {unit}{share}"


def _print_fit(found: Ceilings) -> None:
    """How well the roofline explains the kernels that it was not made of, and the energy."""
    shares = found.attained(found.mixed).tolist()
    if shares:
        worst = found.mixed[shares.index(min(shares))]
        click.echo(
            f"the roofline against the other {len(shares)} products: they reach "
            f"{100 * median(shares):.0f} % of it (median), {100 * min(shares):.0f} % at worst "
            f"({worst.name})"
        )
    if found.energy is not None:
        flop_j, byte_j, constant_w = found.energy
        click.echo(
            f"energy: {1e12 * flop_j:.3g} pJ/FLOP, {1e12 * byte_j:.3g} pJ/B, and "
            f"{constant_w:.3g} W whatever runs"
        )
