"""`powerctl explain`: what bounds a model in a power mode, and what a clock more would buy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.commands.options import Subject, json_option, with_board, with_subject
from powerctl.progress import Progress
from powerctl.quantities import spoken, time_unit

if TYPE_CHECKING:
    from powerctl.boards import Board
    from powerctl.pagoda.counts import Counts
    from powerctl.pagoda.explanation import ClockStep, Explanation
    from powerctl.workload import Workload

_EXAMPLES = """\b
Examples:
  powerctl explain resnet50 --board orin-agx --mode maxn --batch 16
  powerctl explain torchvision:efficientnet_b0 --kind train --mode MODE_30W
  Your own model, made by make_model() of my_pkg/my_mod.py, and its workload for the simulation:
    powerctl explain my_pkg.my_mod:make_model --input 3,224,224 --out mine.toml
  The training of your own task, as its loop, its loss and its loader are:
    powerctl explain --task my_task.py --board orin-nano --batch 32
"""
_STAGES = {"compute": "compute, or the GPU's caches"}
_FOLLOWS = {
    "idle module": "the mode, with nothing to do: static power, clocks, cores online",
    "GPU": "its clock and voltage while it is busy, whatever it does",
    "CPU cores": "their clock and voltage while they are busy",
    "moving data": "bytes a second: DRAM, caches, and the arithmetic on them",
}
_CLOCKS = {"cores": "cores", "cpu_khz": "CPU", "gpu_hz": "GPU", "mem_hz": "memory"}


@click.command(epilog=_EXAMPLES)
@with_subject
@with_board
@click.option("--mode", "text", default="maxn", show_default=True, help="A mode, or a preset.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Batch size.")
@click.option(
    "--layers", "n", type=click.IntRange(0), default=12, show_default=True, help="To show."
)
@click.option("--out", type=click.Path(dir_okay=False), help="Write the workload as .toml.")
@json_option
def explain(
    subject: Subject,
    board: Board,
    text: str,
    batch: int,
    n: int,
    out: str | None,
    as_json: bool,
) -> None:
    """Explain a minibatch of MODEL, or of your own task, from counts and the board's constants.

    MODEL is resnet18, resnet50, mobilenetv3, efficientnet_b0, vit_b_16, lstm, bert-base,
    bert-large, torchvision:NAME, or pkg.module:make, a function that returns yours.
    """
    from pathlib import Path

    from powerctl.pagoda.explanation import explain_minibatch
    from powerctl.workload import write_workload

    mode = board.mode(text)
    counted = subject.counted
    with Progress("counting"):
        counts = counted.counts(batch)
        job = counted.workload(batch)
        assert job.signature is not None  # what is counted has one
        found = explain_minibatch(board, job.signature, counted.efficiency, counts, mode)
    if out:
        write_workload(job, Path(out))
    if as_json:
        console.print_json(_as_json(subject, board, counts, found))
        return
    _print_total(job, board, counts, found)
    _print_layers(found, n)
    _print_steps(found.steps)
    for unknown in counts.unknown:
        click.echo(
            f"not known: {unknown.name}, {unknown.calls} calls with "
            f"{unknown.bytes_share:.1%} of the bytes; its FLOP are not counted"
        )
    if subject.model is None and found.bound == "host":
        click.echo(
            "the loader takes longer than the step: on this host, a core needs "
            f"{spoken(found.stages_s['host'], 's')} of the board's time for a minibatch of it"
        )
    click.echo(
        "estimated from counts, not measured; better: "
        f"powerctl tune {subject.arguments} --device twin:{board.name}"
    )
    if out:
        click.echo(f"{out}: the workload, for powerctl profile, twin and wattfed simulate")


def _print_total(job: Workload, board: Board, counts: Counts, found: Explanation) -> None:
    roof = found.rooflines["fp32"]
    balance, of_tensor_cores = (float(each.time_balance[0]) for each in found.rooflines.values())
    balances = f"{balance:.3g}"
    if of_tensor_cores > balance:
        balances += f" in FP32, {of_tensor_cores:.3g} in TF32 (cuDNN)"
    click.echo(
        f"{job.name}, batch {counts.batch_size}, on {board.label}, at {found.mode}: "
        f"{spoken(found.time_s, 's')}, {spoken(found.power_w, 'W')}, "
        f"{spoken(found.time_s * found.power_w, 'J')}; "
        f"bound by {_STAGES.get(found.bound, found.bound)}"
    )
    click.echo(
        f"{counts.flop / 1e9:.4g} GFLOP, {counts.dram_bytes / 1e6:.4g} MB, "
        f"{counts.kernels} kernels: {counts.intensity:.3g} FLOP/B, where the mode balances at "
        f"{balances}; "
        f"{counts.flop / found.time_s / 1e9:.4g} GFLOP/s of "
        f"{counts.flop / found.roofline_s / 1e9:.4g} by the rooflines"
    )
    holds = bool(roof.time_efficient_is_energy_efficient[0])
    click.echo(
        "a kernel that is time-efficient here is "
        + ("energy-efficient too" if holds else "not always energy-efficient")
        + f": half the peak FLOP/J takes {float(roof.half_efficiency_intensity[0]):.3g} FLOP/B"
    )
    stages = [
        (_STAGES.get(stage, stage), spoken(time_s, "s"), f"{time_s / found.time_s:.0%}")
        for stage, time_s in found.stages_s.items()
    ]
    console.print_table(("stage (they overlap)", "alone", "of the time"), stages)
    total_j = sum(found.energy_j.values())
    parts = [
        (name, spoken(energy_j, "J"), f"{energy_j / total_j:.0%}", _FOLLOWS[name])
        for name, energy_j in found.energy_j.items()
    ]
    console.print_table(("energy", "of all", "share", "what it follows in measured power"), parts)


def _print_layers(found: Explanation, n: int) -> None:
    bounds = ("compute", "caches", "memory", "launch")
    shares = ", ".join(f"{bound} {found.share_bound_by(bound):.0%}" for bound in bounds)
    click.echo(f"time on the GPU by what bounds its layers: {shares}")
    if not n:
        return
    unit, per_s = time_unit([found.time_s])
    rows = [
        (
            layer.count.name,
            layer.count.kind,
            layer.number_format,
            layer.bound,
            f"{layer.time_share:.1%}",
            f"{layer.energy_share:.1%}",
            per_s * layer.compute_s,
            per_s * layer.memory_s,
            per_s * layer.launch_s,
        )
        for layer in found.layers[:n]
    ]
    stages = (f"{stage} ({unit})" for stage in ("compute", "memory", "launch"))
    header = ("layer", "kind", "format", "bound by", "time", "energy", *stages)
    console.print_table(header, rows)
    if len(found.layers) > n:
        rest = sum(layer.time_share for layer in found.layers[n:])
        click.echo(f"and {len(found.layers) - n} layers more, {rest:.0%} of the time")


def _print_steps(steps: tuple[ClockStep, ...]) -> None:
    rows = [
        (
            f"{_CLOCKS[step.axis]} to {_step_text(step)}",
            *(f"{100 * change:+.1f}" for change in (step.time, step.power, step.energy)),
        )
        for step in steps
    ]
    console.print_table(("one step on one axis", "time %", "power %", "energy %"), rows)


def _step_text(step: ClockStep) -> str:
    if step.axis == "cores":
        return str(step.value)
    return f"{step.value / (1e3 if step.axis == 'cpu_khz' else 1e6):.0f} MHz"


def _as_json(subject: Subject, board: Board, counts: Counts, found: Explanation) -> dict[str, Any]:
    roof = found.rooflines["fp32"]
    return {
        "model": subject.counted.called,
        "kind": subject.counted.kind,
        "board": board.name,
        "mode": str(found.mode),
        "batch_size": counts.batch_size,
        "time_s": found.time_s,
        "power_w": found.power_w,
        "bound": found.bound,
        "stages_s": found.stages_s,
        "energy_j": found.energy_j,
        "flop": counts.flop,
        "dram_bytes": counts.dram_bytes,
        "kernels": counts.kernels,
        "intensity": counts.intensity,
        "time_balance": float(roof.time_balance[0]),
        "time_balances": {
            name: float(each.time_balance[0]) for name, each in found.rooflines.items()
        },
        "roofline_s": found.roofline_s,
        "time_efficient_is_energy_efficient": bool(roof.time_efficient_is_energy_efficient[0]),
        "layers": [
            {
                "name": layer.count.name,
                "kind": layer.count.kind,
                "number_format": layer.number_format,
                "flop": layer.count.flop,
                "dram_bytes": layer.count.dram_bytes,
                "bound": layer.bound,
                "time_share": layer.time_share,
                "energy_share": layer.energy_share,
            }
            for layer in found.layers
        ],
        "steps": [vars(step) for step in found.steps],
        "unknown_operators": [
            {"name": u.name, "calls": u.calls, "bytes_share": u.bytes_share} for u in counts.unknown
        ],
    }
