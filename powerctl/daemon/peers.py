"""Who is at the other end of the socket, as the kernel says, and whether they may ask."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from powerctl.errors import DeviceUnavailable, InvalidInput

GROUP = "powerctl"
"""Members of this group may set modes, unless another is named."""

_CREDENTIALS = struct.Struct("iII")
_SO_PEERGROUPS = 59
_MOST_BYTES = 1024  # that Python lets an option have: 256 groups


@dataclass(frozen=True)
class Peer:
    """A process that has connected, with the rights that it had then."""

    pid: int
    uid: int
    gids: frozenset[int]

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


def peer_of(connection: socket.socket) -> Peer:
    """Ask the kernel who has connected."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid, frozenset((gid, *_supplementary(connection, uid, gid))))


def _supplementary(connection: socket.socket, uid: int, gid: int) -> tuple[int, ...]:
    """The other groups: the process's own, or before kernel 4.13 those of its user."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
        return struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:
        pass
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except (KeyError, OSError):
        return ()


@dataclass(frozen=True)
class Admission:
    """Who may ask: root, the user that the daemon runs as, and members of a group.

    Attributes
    ----------
    group : str
        Its name.
    gid : int or None
        Its number; None if there is no such group.
    """

    group: str
    gid: int | None

    @classmethod
    def of(cls, group: str | None) -> Admission:
        """For a group that must be there, or by default `GROUP`, which need not be.

        Raises
        ------
        InvalidInput
            If the named group is not there.
        """
        name = group or GROUP
        try:
            return cls(name, grp.getgrnam(name).gr_gid)
        except KeyError:
            if group is None:
                return cls(name, None)
            raise InvalidInput(
                f"--group {name}: there is no such group; make it: sudo groupadd --system {name}"
            ) from None

    def __str__(self) -> str:
        if self.gid is None:
            return f"root alone (there is no group {self.group}: sudo groupadd -r {self.group})"
        return f"root and the group {self.group}"

    def refusal(self, peer: Peer) -> DeviceUnavailable | None:
        """Why a peer may not ask, in words for it; None if it may."""
        if peer.uid in (0, os.geteuid()) or (self.gid is not None and self.gid in peer.gids):
            return None
        return DeviceUnavailable(
            f"user {peer.uid} may not set modes: that takes a member of group {self.group} "
            f"(sudo usermod -aG {self.group} USER, then log in again)"
        )
