"""`powerctl doctor`, `nvpmodel`, `restore`, `daemon` and `fake-board`: the state of a Jetson."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.options import check_folder_of, json_option
from powerctl.console import Quantity
from powerctl.errors import DeviceUnavailable, ModeNotInForce

if TYPE_CHECKING:
    from powerctl.doctor.report import Axis, Report
    from powerctl.doctor.torch_here import TorchHere
    from powerctl.jetson.discovery import Missing
    from powerctl.jetson.nvpmodel import PresetReport
    from powerctl.jetson.sysfs import Sysfs

root_option = click.option(
    "--root",
    type=click.Path(exists=True, path_type=Path),
    default="/",
    show_default=True,
    help="Folder of a fake board, or a recorded board, to look at instead.",
)

named_option = click.option(
    "--board",
    "named",
    metavar="NAME",
    help="The board, if it cannot be recognised.",
)

_PER_MHZ = {"cpu_khz": 1e3, "gpu_hz": 1e6, "mem_hz": 1e6}


@click.command()
@root_option
@named_option
@click.option(
    "--record",
    "recording",
    metavar="FILE",
    help="Record the board in a file, for --device recorded:FILE, and end.",
)
@click.option(
    "--report",
    "report_file",
    metavar="FILE",
    help="Write a report that adds this board to the catalogue (powerctl board new), and end.",
)
@json_option
def doctor(
    root: Path,
    named: str | None,
    recording: str | None,
    report_file: str | None,
    as_json: bool,
) -> None:
    """Look at a Jetson: its board, clocks, presets, power rails, throttling and torch.

    Changes nothing, and needs no torch. Exit code 1 if this user cannot set modes here; the output
    says how to fix that.
    """
    from powerctl.devices.roots import open_sysfs
    from powerctl.doctor.board_report import board_report
    from powerctl.doctor.recording import record
    from powerctl.doctor.report import examine
    from powerctl.doctor.torch_here import look_at_torch
    from powerctl.durable import write_output

    check_folder_of(recording, report_file)
    if recording is not None:
        count = record(root, recording, named)
        click.echo(f"{recording}: {count} files recorded; nothing of you is in them")
    if report_file is not None:
        write_output(report_file, board_report(open_sysfs(root), named))
        click.echo(f"{report_file}: written; nothing of you is in it")
    if recording is not None or report_file is not None:
        return
    report = examine(open_sysfs(root), named)
    torch = look_at_torch(report.jetpack)
    if as_json:
        more = {
            "total_w": report.total_w,
            "total_from": report.total_from,
            "ok": report.ok,
            "torch": asdict(torch),
        }
        console.print_json({**asdict(report), **more})
    else:
        _show(report)
        _show_torch(torch)
    if not report.ok:
        sys.exit(1)


def _show(report: Report) -> None:
    jetpack = f"JetPack {report.jetpack}" if report.jetpack else "of no JetPack that is known here"
    release = f"L4T {report.l4t} ({jetpack})" if report.l4t else "L4T release unknown"
    by = "" if report.told_by == "the device tree" else f", says {report.told_by}"
    click.echo(f"{report.model or 'unknown machine'}: {report.board or 'not in the catalogue'}{by}")
    click.echo(f"{release}, parts {', '.join(report.parts) or 'unknown'}")
    for note in report.notes:
        click.echo(note)
    click.echo()
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
    if report.unmeasured:
        click.echo("power:")
    _show_missing(report.unmeasured)


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
    click.echo()
    _print_presets(report.presets)
    masks = ", ".join(
        f"{name} {'unreadable' if mask is None else mask}" for name, mask in report.masks.items()
    )
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
        rows.append(["module", report.total_w, report.total_from or ""])
    console.print_table(("rail", "power (W)", ""), rows)


def _show_throttling(report: Report) -> None:
    heat = ", ".join(f"{zone} {t:.0f}" for zone, t in report.throttling.celsius.items())
    events = ", ".join(f"{name} {count}" for name, count in report.throttling.events.items())
    click.echo(f"\ntemperatures (degC): {heat or 'none to be read'}")
    click.echo(f"over-current since boot: {events or 'no counter'}")
    click.echo(f"throttles now: {report.throttles_now or 'no'}")


_NVPMODEL_EXAMPLES = """\b
Examples:
    powerctl nvpmodel
    sudo powerctl nvpmodel MODE_30W
"""


@click.command(epilog=_NVPMODEL_EXAMPLES)
@click.argument("preset", required=False)
@root_option
@json_option
def nvpmodel(preset: str | None, root: Path, as_json: bool) -> None:
    """List the presets that are installed, or switch to PRESET (its name or number).

    Each is shown as the mode that it stands for, with the clocks that the board rounds. A switch
    that needs a reboot is refused, and one while modes are held. It stays after this command.
    """
    from powerctl.devices.roots import open_sysfs
    from powerctl.jetson.controller import Control
    from powerctl.jetson.discovery import discover
    from powerctl.jetson.nvpmodel import CONFIGURATION, describe_presets, read_configuration, switch

    sysfs = open_sysfs(root)
    configuration = read_configuration(sysfs)
    if configuration is None:
        raise DeviceUnavailable(f"/{CONFIGURATION} is not there: nvpmodel is not installed here")
    if preset is not None:
        wanted, control = configuration.preset(preset), Control(sysfs)
        control.take()
        try:
            switch(sysfs, configuration, wanted)
        finally:
            control.give_back()
    reports = describe_presets(configuration, discover(sysfs), sysfs)
    if as_json:
        console.print_json([asdict(report) for report in reports])
    else:
        _print_presets(reports)


def _print_presets(presets: Sequence[PresetReport]) -> None:
    """Print each preset of nvpmodel with its mode, and what keeps it from being set."""
    rows = []
    for preset in presets:
        notes = [*preset.rounded, *([f"reboot: {preset.reboot}"] if preset.reboot else [])]
        running = "running" if preset.is_running else ""
        rows.append([f"{preset.id} {preset.name}", preset.mode or "", running, "; ".join(notes)])
    console.print_table(("nvpmodel preset", "mode", "", "notes"), rows)


@click.command("restore")
@root_option
@click.option(
    "--as-booted",
    is_flag=True,
    help="Set nvpmodel's preset, with memory and GPU as they float: where it is not known any "
    "more what was found.",
)
@json_option
def restore_command(root: Path, as_booted: bool, as_json: bool) -> None:
    """Bring a Jetson back to how it was found, after the process that changed it was killed.

    Does nothing if nothing is left changed, or after a restart of the board, which undoes it all.
    The daemon does it where it serves, and takes the board from a holder of the same user. Lists
    what is restored and what is not; ends with 2 if something stays changed.
    """
    from powerctl.devices.roots import open_sysfs
    from powerctl.jetson.journal import Journal
    from powerctl.jetson.restoring import still_changed

    sysfs, failure, said = open_sysfs(root), None, ""
    noted, before = len(Journal(sysfs).found), still_changed(sysfs)
    try:
        said = _set_as_booted(sysfs) if as_booted else _bring_back(sysfs, noted)
    except ModeNotInForce as error:
        failure = error
    after = still_changed(sysfs)
    restored = {path: sysfs.read_if(path) for path in before if path not in after}
    if as_json:
        why = str(failure) if failure else None
        console.print_json({"restored": restored, "still_changed": after, "error": why})
    else:
        if said:
            click.echo(said)
        if restored:
            click.echo(f"restored: {len(restored)} of {noted} files had been changed")
        for path, value in restored.items():
            click.echo(f"  /{path} = {value}")
        if after:
            click.echo(f"still changed: {len(after)} files, with what they held")
        for path, value in after.items():
            click.echo(f"  /{path}: {value}")
    if failure:
        raise failure


def _bring_back(sysfs: Sysfs, noted: int) -> str:
    """Restore by the daemon, or here; gives what there is to say of it."""
    from powerctl.daemon.messages import Request
    from powerctl.daemon.remote import find_daemon
    from powerctl.jetson.restoring import restore_left

    daemon = find_daemon(sysfs)
    if daemon is not None:
        daemon.ask(Request("restore"))
        return "the daemon has restored the board, or found nothing changed"
    restore_left(sysfs)
    return "" if noted else "nothing to restore: no controller was killed since the board started"


def _set_as_booted(sysfs: Sysfs) -> str:
    from powerctl.jetson.restoring import set_as_booted

    return f"set as booted: preset {set_as_booted(sysfs)}, memory and GPU as they float"


_DAEMON_EXAMPLES = """\b
Examples:
  On a Jetson, as a service:
    sudo groupadd --system powerctl && sudo usermod -aG powerctl $USER
    powerctl daemon --print-unit | sudo tee /etc/systemd/system/powerctl.service
    sudo systemctl daemon-reload && sudo systemctl enable --now powerctl
  To try it on a fake board:
    powerctl fake-board orin-agx /tmp/orin
    powerctl daemon --root /tmp/orin &
    powerctl profile --device jetson:/tmp/orin --modes 3 --out run.jsonl
"""


@click.command(epilog=_DAEMON_EXAMPLES)
@root_option
@click.option(
    "--socket",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default="ROOT/run/powerctl/daemon.sock",
    help="Socket of the daemon; clients find another one by $POWERCTL_SOCKET.",
)
@click.option(
    "--group", show_default="powerctl, if there is one", help="Group whose members may set modes."
)
@click.option(
    "--hold",
    "hold_s",
    type=Quantity("seconds", least=0.1, most=3600),
    default=15.0,
    show_default=True,
    help="Restore the board when its holder was silent for so many seconds.",
)
@click.option("--print-unit", is_flag=True, help="Print the unit file for systemd, and end.")
def daemon(
    root: Path, path: Path | None, group: str | None, hold_s: float, print_unit: bool
) -> None:
    """Set power modes for root and the members of a group; run it as root.

    One process at a time holds the board. As soon as that ends, is silent, or asks for it, all is
    restored; likewise when the daemon ends, and when it starts after it was killed.
    """
    import asyncio

    from powerctl.daemon.board_lock import BoardLock
    from powerctl.daemon.listening import Listener, daemon_socket
    from powerctl.daemon.peers import Admission
    from powerctl.daemon.server import Server
    from powerctl.daemon.systemd import log_to_stderr, unit
    from powerctl.devices.roots import open_sysfs

    if print_unit:
        click.echo(unit(str(Path(sys.argv[0]).resolve())), nl=False)
        return
    log_to_stderr()
    sysfs, admission = open_sysfs(root), Admission.of(group)
    with closing(Listener(sysfs.root, path or daemon_socket(sysfs.root), admission.gid)) as at:
        asyncio.run(Server(at, BoardLock(sysfs, hold_s), admission).run())


_FAKE_BOARD_EXAMPLES = """\b
Examples:
    powerctl fake-board orin-agx --jetpack 6 /tmp/orin
    powerctl doctor --root /tmp/orin
    powerctl profile --device jetson:/tmp/orin --modes 10 --out run.jsonl
"""


@click.command("fake-board", epilog=_FAKE_BOARD_EXAMPLES)
@click.argument("board")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--jetpack",
    type=click.Choice(["4", "5.0", "5", "5.1", "6", "7"]),
    default="5.1",
    show_default=True,
    help="5 is 5.1; Nano has 4, Xavier 4 and 5.1, Orin 5.0 (AGX only), 5.1, 6 and 7.",
)
def fake_board(board: str, folder: Path, jetpack: str) -> None:
    """Make a fake BOARD in FOLDER: files that take, round and refuse writes as the kernel does.

    Time and power come from the twin. Nothing measured on it is a Jetson's result.
    """
    from powerctl.fakes.making import make_fake_board

    sysfs = make_fake_board(board, jetpack, folder)
    state = sysfs.kernel.state
    click.echo(
        f"{folder}: {state.board}, L4T {state.l4t}; look at it: powerctl doctor --root {folder}"
    )
