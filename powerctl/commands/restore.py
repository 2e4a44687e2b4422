"""`powerctl restore`: brings a board back that a killed controller left changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console
from powerctl.commands.doctor import root_option
from powerctl.commands.options import json_option
from powerctl.errors import ModeNotInForce

if TYPE_CHECKING:
    from powerctl.jetson.sysfs import Sysfs


@click.command()
@root_option
@click.option(
    "--as-booted",
    is_flag=True,
    help="Set nvpmodel's preset, with memory and GPU as they float: where it is not known any "
    "more what was found.",
)
@json_option
def restore(root: Path, as_booted: bool, as_json: bool) -> None:
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
    from powerctl.daemon.protocol import Request
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
