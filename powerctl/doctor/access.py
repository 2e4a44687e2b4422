"""Whether a daemon is there, and serves this user; and if not, what mends it."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Any

from powerctl.axes import PowerMode
from powerctl.daemon.messages import Request
from powerctl.daemon.peers import GROUP
from powerctl.daemon.remote import find_daemon
from powerctl.errors import PowerctlError
from powerctl.jetson.container import CONTAINER_OPTIONS, is_container
from powerctl.jetson.sysfs import Sysfs


@dataclass(frozen=True)
class Access:
    """What a look at the daemon shows: whether it serves this user, and what it reads.

    Attributes
    ----------
    says : str
        In words: whether it serves this user, and whom it serves now.
    seen : dict or None
        What it reads on the board; None if it does not serve this user.
    group : str
        In words: whether this user is in the daemon's group.
    remedy : str
        What lets this user set modes, if it does not serve.
    """

    says: str
    seen: dict[str, Any] | None
    group: str
    remedy: str


def look(sysfs: Sysfs) -> Access:
    """Ask the daemon of a board; changes nothing."""
    group, joining = _membership()
    start = "start the daemon: powerctl daemon --help says how"
    remedy = f"sudo, or {start}" + (f"; then {joining}" if joining else "")
    if is_container(sysfs):
        remedy = joining = CONTAINER_OPTIONS
    try:
        daemon = find_daemon(sysfs)
        if daemon is None:
            return Access("not running", None, group, remedy)
        seen = daemon.ask(Request("read"))
        daemon.close()
    except PowerctlError as error:
        return Access(f"serves others: {error}", None, group, joining or str(error))
    holder = seen["holder"]
    held = "nobody holds the board"
    if holder is not None:
        mode = PowerMode(*holder["mode"])
        held = f"process {holder['pid']} of user {holder['uid']} holds the board in {mode}"
    return Access(f"serves this user; {held}", seen, group, "")


def _membership() -> tuple[str, str]:
    """Whether this user is in the group, and what makes it so; empty if nothing need."""
    join = f"sudo usermod -aG {GROUP} $USER, then log in again"
    try:
        entry = grp.getgrnam(GROUP)
    except KeyError:
        return "there is none", f"sudo groupadd --system {GROUP} && {join}"
    if os.geteuid() == 0:
        return "root needs none", ""
    if entry.gr_gid in (os.getegid(), *os.getgroups()):
        return "this user is a member", ""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    if name in entry.gr_mem:
        return "this user is a member, from its next log-in on", "log in again"
    return "this user is no member", join
