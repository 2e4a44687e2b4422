"""`powerctl daemon`: the service that sets modes for those who are not root."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import click

from powerctl.commands.doctor import root_option
from powerctl.console import Quantity

_EXAMPLES = """\b
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


@click.command(epilog=_EXAMPLES)
@root_option
@click.option(
    "--socket",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default="ROOT/run/powerctl/daemon.sock",
    help="Where it listens; clients find another by $POWERCTL_SOCKET.",
)
@click.option(
    "--group", show_default="powerctl, if there is one", help="Whose members may set modes."
)
@click.option(
    "--hold",
    "hold_s",
    type=Quantity("seconds", least=0.1, most=3600),
    default=15.0,
    show_default=True,
    help="Seconds of silence after which a holder is taken for dead.",
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
    from powerctl.daemon.listening import Listener, default_socket
    from powerctl.daemon.peers import Admission
    from powerctl.daemon.server import Server
    from powerctl.daemon.systemd import log_to_stderr, unit
    from powerctl.devices.roots import open_sysfs

    if print_unit:
        click.echo(unit(str(Path(sys.argv[0]).resolve())), nl=False)
        return
    log_to_stderr()
    sysfs, admission = open_sysfs(root), Admission.of(group)
    with closing(Listener(sysfs.root, path or default_socket(sysfs.root), admission.gid)) as at:
        asyncio.run(Server(at, BoardLock(sysfs, hold_s), admission).run())
