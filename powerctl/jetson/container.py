"""Containers on a Jetson: they see of their host only what they are given."""

from __future__ import annotations

import re

from powerctl.jetson.sysfs import Sysfs

CONTAINER_OPTIONS = (
    "start the container with -v /run/powerctl:/run/powerctl "
    '--group-add "$(getent group powerctl | cut -d: -f3)", beside a daemon on the host'
)
"""What lets a container set modes, and know which board it is on: the daemon does and says it."""

_MARKS = (".dockerenv", "run/.containerenv")  # of Docker, of Podman
_READ_ONLY = re.compile(r"^sysfs /sys sysfs ro\b", re.MULTILINE)  # in every other unprivileged one


def is_container(sysfs: Sysfs) -> bool:
    """Whether the root of these files is a container's, or a service's that is shut in like one."""
    if any(sysfs.exists(mark) for mark in _MARKS):
        return True
    return bool(_READ_ONLY.search(sysfs.read_if("proc/mounts") or ""))
