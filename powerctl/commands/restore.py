"""`powerctl restore`: brings a board back that a killed controller left changed."""

from __future__ import annotations

from pathlib import Path

import click

from powerctl.commands.doctor import root_option


@click.command()
@root_option
def restore(root: Path) -> None:
    """Bring a Jetson back to how it was found, after the process that changed it was killed.

    Does nothing if nothing is left changed, or after a restart of the board, which undoes it all.
    The daemon does it where it serves, and takes the board from a holder of the same user.
    """
    from powerctl.daemon.protocol import Request
    from powerctl.daemon.remote import find_daemon
    from powerctl.jetson.journal import Journal, Lock
    from powerctl.jetson.restoring import restore as bring_back
    from powerctl.jetson.sysfs import Sysfs

    sysfs = Sysfs.open(root)
    daemon = find_daemon(sysfs)
    if daemon is not None:
        daemon.ask(Request("restore"))
        click.echo("the daemon has restored the board, or found nothing changed")
        return
    lock = Lock(sysfs)
    try:
        journal = Journal(sysfs)
        noted = len(journal.found)
        changed = bring_back(sysfs, journal)
    finally:
        lock.release()
    if not noted:
        click.echo("nothing to restore: no controller was killed since the board started")
        return
    click.echo(f"restored: {len(changed)} of {noted} files had been changed")
    for path, value in changed.items():
        click.echo(f"  /{path} = {value}")
