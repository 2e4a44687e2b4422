"""Which board this is: its part numbers, its entry of the catalogue, its L4T release."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from typing import Annotated, Any

from powerctl.board_files import (
    UNKNOWN_RELEASE,
    canonical_name,
    every_board,
    known_module,
    read_board,
    release_of,
)
from powerctl.errors import InvalidInput
from powerctl.fields import Range, build
from powerctl.jetson.sysfs import Sysfs
from powerctl.reading import in_line, read_toml

BOARD_VARIABLE = "POWERCTL_BOARD"

_TREE = "proc/device-tree"
# The device tree of AGX Xavier's developer kit names the kit only, which holds this module.
_KITS = {"p2972-0000": "p2888-0001"}
_LONGEST = 80  # of a name
_PART = re.compile(r"p\d{4}-\d{4}")

_Told = Annotated[str, Range(0, 1000, printable=True)]


@dataclass(frozen=True)
class Identity:
    """What a board says of itself.

    Attributes
    ----------
    model : str
        The device tree's name for people, empty if there is none.
    parts : tuple of str
        Part numbers of module and carrier, such as ``p3701-0005``.
    compatible : tuple of str
        The device tree's list.
    l4t : str or None
        The release of its software, such as ``35.3.1``; None where nothing says it.
    name : str or None
        Its entry of the board catalogue; None if it has none.
    told_by : str
        Who says it: the device tree, the daemon, or ``--board``.
    """

    model: _Told
    parts: Annotated[tuple[_Told, ...], Range(0, 100)]
    compatible: Annotated[tuple[_Told, ...], Range(0, 100)]
    l4t: _Told | None
    name: _Told | None
    told_by: _Told = "the device tree"

    @property
    def jetpack(self) -> str | None:
        """Version of JetPack; of a release that is not listed the major one, or None."""
        return _jetpack(self.l4t) if self.l4t else None

    @property
    def is_seen(self) -> bool:
        """Whether anything says which board this is, in the catalogue or not."""
        return bool(self.name or self.compatible)

    @property
    def called(self) -> str:
        """Its entry of the catalogue; of a board without one its module's name or part number.

        Of one without part numbers it is what the device tree calls it.

        Raises
        ------
        InvalidInput
            If nothing says which board this is.
        """
        if self.name is not None:
            return self.name
        if not self.is_seen:
            raise InvalidInput(f"{CANNOT_BE_SEEN}: {HOW_TO_TELL}")
        if (known := known_module(self.parts)) is not None:
            return str(known["name"])
        modules = [entry.rpartition("+")[2] for entry in self.compatible if "+" in entry]
        found = [part for part in (*modules, *self.parts) if _PART.fullmatch(part)]
        said = found[0] if found else self.compatible[0].rpartition(",")[2]
        return re.sub(r"[^\w-]+", "-", said, flags=re.ASCII)[:_LONGEST].strip("-") or "unnamed"

    @property
    def total_rule(self) -> str:
        """By which rule its rails add up; see `powerctl.jetson.rails.total_labels`."""
        return "module" if self.name else "labels"

    @property
    def release(self) -> str:
        """The release that tables and predictors of this board are kept under."""
        return self.l4t or UNKNOWN_RELEASE

    def mem_hz(self) -> tuple[int, ...]:
        """The memory rates that the catalogue has for it, ascending; empty if it has none."""
        if self.name is None:
            return ()
        return tuple(release_of(self.name, self.known_release(self.name))["mem_hz"])

    def known_release(self, name: str) -> str | None:
        """Its release if the catalogue has axes of a board for it; else None: the oldest."""
        try:
            release_of(name, self.l4t)
        except InvalidInput:  # software older than the oldest axes: the kernel lists them anyway
            return None
        return self.l4t

    def told(self) -> dict[str, Any]:
        """As plain values, for who is told by the daemon; `identity_told` reads them."""
        return asdict(self)


CANNOT_BE_SEEN = "which board this is cannot be seen: /proc/device-tree is not there"
HOW_TO_TELL = (
    "in a container, mount the daemon's socket (-v /run/powerctl:/run/powerctl), which tells; "
    "or say it: --board NAME of powerctl boards, or POWERCTL_BOARD=NAME"
)


def identify(sysfs: Sysfs, board: str | None = None) -> Identity:
    """Read what the device tree and the release file say.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    board : str, optional
        The catalogue's name of it (or a file), for where no device tree is to be seen; by default
        what ``$POWERCTL_BOARD`` says.

    Raises
    ------
    InvalidInput
        If the device tree says that it is another board.
    """
    compatible = tuple(in_line(sysfs.read_if(f"{_TREE}/compatible") or "", 1000).split())
    source = sysfs.read_if(f"{_TREE}/nvidia,dtsfilename") or ""
    found = _PART.findall(" ".join((*compatible, source.rpartition("/")[2])))
    parts = tuple(dict.fromkeys([*found, *(_KITS[p] for p in found if p in _KITS)]))
    seen = Identity(
        model=in_line(sysfs.read_if(f"{_TREE}/model") or ""),
        parts=parts,
        compatible=compatible,
        l4t=_release(sysfs.read_if("etc/nv_tegra_release") or ""),
        name=catalogue_name(parts),
    )
    board = board or os.environ.get(BOARD_VARIABLE)
    return _named(seen, board) if board else seen


def identity_told(values: object, board: str | None = None) -> Identity:
    """What the daemon tells of its board, with the entry of the catalogue that there is here."""
    told = build(Identity, values, "the daemon's identity", ignored=None)
    named = told.name if told.name in set(every_board()) else None  # by a person, to the daemon
    told = replace(told, name=catalogue_name(told.parts) or named, told_by="the daemon")
    return told if board is None else _named(told, board)


def _named(seen: Identity, board: str) -> Identity:
    name = canonical_name(board)
    if seen.name not in (None, name):
        raise InvalidInput(
            f"--board {board}: {seen.told_by} says {seen.model} ({', '.join(seen.parts)}), "
            f"which is {seen.name}; leave --board out"
        )
    return seen if seen.name else replace(seen, name=name, told_by="--board")


def _release(text: str) -> str | None:
    match = re.search(r"R(\d+)\b.*?REVISION:\s*([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else None


@cache
def _jetpack(l4t: str) -> str | None:
    known = read_toml(resources.files("powerctl.jetson") / "jetpacks.toml")
    listed: Mapping[str, str] = known["releases"]
    majors: Mapping[str, str] = known["majors"]
    padded = ".".join((*l4t.split("."), "0", "0")[:3])
    return listed.get(padded) or majors.get(l4t.partition(".")[0])


def catalogue_name(parts: Collection[str]) -> str | None:
    """The entry of the catalogue that has one of some part numbers; None if none has."""
    for name in every_board() if parts else ():
        if set(parts) & set(read_board(name)["modules"]):
            return name
    return None
