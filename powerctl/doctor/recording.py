"""Recording a board: the files that powerctl reads on it, as they are, and nothing of its owner.

Which files those are is not listed anywhere: the board is looked at as by the doctor, and what was
read, looked for or followed on the way is recorded. So a recording is as good as a board to all
that only looks, and stays so when more is looked at.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from powerctl.doctor.report import examine
from powerctl.durable import write_output
from powerctl.errors import PowerctlError
from powerctl.jetson.clocks import Clocks
from powerctl.jetson.discovery import discover
from powerctl.jetson.journal import Journal
from powerctl.jetson.rails import RailPower
from powerctl.jetson.recording import FORMAT, NOTE
from powerctl.jetson.sysfs import Sysfs
from powerctl.jetson.throttling import Thermometer

# Of the kernel and of nvpmodel: elsewhere are names, places and times of the owner.
_RECORDED = re.compile(
    r"sys/|proc/device-tree|proc/mounts$|etc/nv_tegra_release$|etc/nvpmodel|var/lib/nvpmodel/"
    r"|opt/nvidia/"
)
# Of a container's mark, and of the GPU's nodes, it is recorded that they are there.
_THERE = re.compile(r"\.dockerenv$|run/\.containerenv$|dev/nv")


class _Watched(Sysfs):
    """A board's files, with what is asked of them written down."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: set[str] = set()

    def read(self, path: str) -> str:
        self.asked.add(path)
        return super().read(path)

    def exists(self, path: str) -> bool:
        self.asked.add(path)
        return super().exists(path)

    def find(self, pattern: str) -> list[str]:
        found = super().find(pattern)
        self.asked.update(found)
        return found

    def resolve(self, path: str) -> str:
        self.asked.add(path)
        return super().resolve(path)


def record(root: Path, file: str, board: str | None = None) -> int:
    """Write the recording of a board; gives how many files are in it.

    Parameters
    ----------
    root : Path
        Of the kernel's files; nothing is written there.
    file : str
        The tar to write.
    board : str, optional
        Which board it is, for where neither a device tree nor a daemon says it.
    """
    sysfs = _Watched(root)
    examine(sysfs, board)
    _look_as_a_device_does(sysfs)
    files, links, errors = _contents(sysfs)
    note = json.dumps({"format": FORMAT, "errors": errors}, indent=1)
    write_output(file, _tar({NOTE: note, **files}, links))
    return len(files)


def _look_as_a_device_does(sysfs: Sysfs) -> None:
    """Read what an open device reads, and the doctor does not."""
    found = discover(sysfs)
    Thermometer(sysfs).excess_c()
    with suppress(PowerctlError, OSError):
        RailPower(sysfs, "labels").total_w()
    with suppress(PowerctlError, OSError):
        clocks = Clocks(sysfs, found, Journal(sysfs))
        clocks.mode(found.axes())
        clocks.check(found.axes().maximum)


def _contents(sysfs: _Watched) -> tuple[dict[str, str | None], dict[str, str], dict[str, int]]:
    """What is recorded: files (None for folders), links, and the number of each error."""
    files: dict[str, str | None] = {}
    links: dict[str, str] = {}
    errors: dict[str, int] = {}
    for asked in sorted(sysfs.asked):
        if _THERE.match(asked) and sysfs.exists(asked):
            files[asked] = ""
            continue
        path = _followed(sysfs.root, asked, links)
        if _RECORDED.match(asked) and (path is None or not _RECORDED.match(path)):
            links.pop(asked, None)  # to where names of the owner are: its content takes its place
            path = asked
        if path is None or not _RECORDED.match(path) or not os.path.lexists(sysfs.root / path):
            continue
        if (sysfs.root / path).is_dir():
            files[path] = None
            continue
        try:
            files[path] = _without_names(path, Sysfs.read(sysfs, path))
        except OSError as error:
            files[path], errors[path] = "", error.errno or 5
    return files, links, errors


def _followed(root: Path, path: str, links: dict[str, str]) -> str | None:
    """Where a path leads below the root, its links noted on the way; None if it leads out."""
    done: list[str] = []
    left = [part for part in path.split("/") if part]
    for _ in range(1000):  # as the kernel, which gives up after 40 links
        if not left:
            return "/".join(done)
        part = left.pop(0)
        if part == "..":
            if not done:
                return None
            done.pop()
            continue
        here = "/".join([*done, part])
        if not os.path.islink(root / here):
            done.append(part)
            continue
        target = os.readlink(root / here)
        inside = target.lstrip("/") if target.startswith("/") else os.path.join(*done, target)
        inside = os.path.normpath(inside)
        if inside.startswith(".."):
            return None
        if _RECORDED.match(f"{here}/") or _RECORDED.match(here):
            links[here] = os.path.relpath(inside, "/".join(done) or ".")
        if target.startswith("/"):
            done = []
        left = [p for p in target.split("/") if p and p != "."] + left
    return None


def _without_names(path: str, text: str) -> str:
    """A file's text without what a person may have written in it."""
    if path == "proc/mounts":
        kept = (" /sys/kernel/debug debugfs ", " /sys sysfs ")
        return "\n".join(line for line in text.splitlines() if any(kind in line for kind in kept))
    if path.endswith("nvidia,dtsfilename"):
        return text.rpartition("/")[2]
    if path.startswith("etc/nvpmodel"):
        return re.sub(r"#.*", "#", text)
    return text


def _tar(files: dict[str, str | None], links: dict[str, str]) -> bytes:
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, text in sorted(files.items()):
            if any(str(parent) in links for parent in Path(name).parents):
                continue  # the same file by another name
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if text is None else tarfile.REGTYPE
            data = (text or "").encode()
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
        for name, target in sorted(links.items()):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return content.getvalue()
