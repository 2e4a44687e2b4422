"""`powerctl doctor`: looks at a Jetson, changes nothing, and says what mends what is missing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import json_option

if TYPE_CHECKING:
    from powerctl.doctor.report import Axis, Report
    from powerctl.doctor.torch_here import TorchHere
    from powerctl.jetson.discovery import Missing

root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/",
    show_default=True,
    help="Of the kernel's files; a fake board's folder.",
)

_PER_MHZ = {"cpu_khz": 1e3, "gpu_hz": 1e6, "mem_hz": 1e6}


@click.command()
@root_option
@json_option
def doctor(root: Path, as_json: bool) -> None:
    """Look at a Jetson: its board, clocks, presets, power rails, throttling and torch.

    Nothing is changed. Ends with 1 if this user cannot apply modes here, and says what mends it;
    that needs no torch.
    """
    from powerctl.devices.roots import open_sysfs
    from powerctl.doctor.report import examine
    from powerctl.doctor.torch_here import look_at_torch

    report = examine(open_sysfs(root))
    torch = look_at_torch(report.jetpack)
    if as_json:
        more = {"total_w": report.total_w, "ok": report.ok, "torch": asdict(torch)}
        console.print_json({**asdict(report), **more})
    else:
        _show(report)
        _show_torch(torch)
    if not report.ok:
        sys.exit(1)


def _show(report: Report) -> None:
    release = f"L4T {report.l4t} (JetPack {report.jetpack})" if report.l4t else "no L4T release"
    click.echo(f"{report.model or 'unknown machine'}: {report.board or 'not in the catalogue'}")
    click.echo(f"{release}, parts {', '.join(report.parts) or 'unknown'}\n")
    if report.axes:
        console.print_table(
            ("axis", "values", "from", "to", "in force", "may be set"),
            [_axis_row(axis) for axis in report.axes],
        )
    _show_presets(report)
    _show_power(report)
    _show_throttling(report)
    click.echo(f"\ndaemon: {report.daemon}; group powerctl: {report.group}")
    if report.controlled_by:
        click.echo(f"process {report.controlled_by} controls this board")
    click.echo("\nmodes can be applied here" if report.ok else "\nmodes cannot be applied here:")
    _show_missing(report.missing)


def _show_missing(missing: tuple[Missing, ...]) -> None:
    for item in missing:
        click.echo(f"  {item.what}\n    -> {item.remedy}")


def _show_torch(torch: TorchHere) -> None:
    if torch.version is None:
        click.echo("\nno torch")
    else:
        built = f"for CUDA {torch.cuda}" if torch.cuda else "without CUDA"
        click.echo(
            f"\ntorch {torch.version} of {torch.file}, built {built}; "
            f"GPU: {torch.gpu or 'none that it sees'}; torchvision: {torch.torchvision or 'none'}"
        )
    _show_missing(torch.missing)


def _axis_row(axis: Axis) -> list[object]:
    per_mhz = _PER_MHZ.get(axis.name, 1)
    name = f"{axis.name.partition('_')[0]} (MHz)" if axis.name in _PER_MHZ else axis.name
    ends = [f"{axis.values[i] / per_mhz:g}" for i in (0, -1)] if axis.values else ["", ""]
    may = "yes" if axis.settable else "no"
    return [name, str(len(axis.values)), *ends, axis.in_force, may]


def _show_presets(report: Report) -> None:
    if not report.presets:
        click.echo("\nnvpmodel: no configuration")
        return
    from powerctl.commands.nvpmodel import show_presets

    click.echo()
    show_presets(report.presets)
    masks = ", ".join(f"{name} {mask}" for name, mask in report.masks.items())
    click.echo(f"power gating of the GPU: {masks or 'none'} (never changed: it needs a reboot)")


def _show_power(report: Report) -> None:
    if not report.rails:
        return
    click.echo()
    rows = [
        [label, watts, "in the total" if label in report.total_rails else ""]
        for label, watts in report.rails.items()
    ]
    if report.total_w is not None:
        rows.append(["module", report.total_w, ""])
    console.print_table(("rail", "power (W)", ""), rows)


def _show_throttling(report: Report) -> None:
    heat = ", ".join(f"{zone} {t:.0f}" for zone, t in report.throttling.celsius.items())
    events = ", ".join(f"{name} {count}" for name, count in report.throttling.events.items())
    click.echo(f"\ntemperatures (degC): {heat or 'none to be read'}")
    click.echo(f"over-current since boot: {events or 'no counter'}")
    click.echo(f"throttles now: {report.throttles_now or 'no'}")
