"""Which board this is: its part numbers, its entry of the catalogue, its L4T release."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain

from powerctl.board_files import BOARDS, read_board, release_of
from powerctl.errors import InvalidInput
from powerctl.jetson.sysfs import Sysfs

_TREE = "proc/device-tree"
# The device tree of AGX Xavier's developer kit names the kit only, which holds this module.
_KITS = {"p2972-0000": "p2888-0001"}
_JETPACKS = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7"}


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
        The release of its software, such as ``35.3.1``.
    name : str or None
        Its entry of the board catalogue; None if it has none.
    """

    model: str
    parts: tuple[str, ...]
    compatible: tuple[str, ...]
    l4t: str | None
    name: str | None

    @property
    def jetpack(self) -> str | None:
        """Major version of JetPack, None if the release is unknown."""
        return _JETPACKS.get((self.l4t or "").partition(".")[0])

    def mem_hz(self) -> tuple[int, ...]:
        """The memory rates that the catalogue has for it, ascending.

        Raises
        ------
        InvalidInput
            If the board is not in the catalogue.
        """
        return tuple(release_of(self.known_name(), self.known_release())["mem_hz"])

    def known_name(self) -> str:
        """Its entry of the catalogue; raises `InvalidInput` if it has none."""
        if self.name is None:
            parts = ", ".join(self.parts) or "no part number"
            raise InvalidInput(
                f"{self.model or 'this machine'} ({parts}) is not in the board catalogue: "
                "powerctl boards lists it; a new board is a .toml file in powerctl/boards"
            )
        return self.name

    def known_release(self) -> str | None:
        """Its release if the catalogue has axes for it; else None, which takes the oldest."""
        try:
            release_of(self.known_name(), self.l4t)
        except InvalidInput:  # software older than the oldest axes: the kernel lists them anyway
            return None
        return self.l4t


def identify(sysfs: Sysfs) -> Identity:
    """Read what the device tree and the release file say."""
    compatible = tuple((sysfs.read_if(f"{_TREE}/compatible") or "").split())
    source = sysfs.read_if(f"{_TREE}/nvidia,dtsfilename") or ""
    found = re.findall(r"p\d{4}-\d{4}", " ".join((*compatible, source)))
    parts = tuple(dict.fromkeys([*found, *(_KITS[p] for p in found if p in _KITS)]))
    return Identity(
        model=sysfs.read_if(f"{_TREE}/model") or "",
        parts=parts,
        compatible=compatible,
        l4t=_release(sysfs.read_if("etc/nv_tegra_release") or ""),
        name=_catalogue_name(parts),
    )


def _release(text: str) -> str | None:
    match = re.search(r"R(\d+)\b.*?REVISION:\s*([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else None


def _catalogue_name(parts: tuple[str, ...]) -> str | None:
    for name in chain(sorted(BOARDS.built_in), BOARDS.others()):
        if set(parts) & set(read_board(name)["modules"]):
            return name
    return None
