"""The board catalogue: axes, presets, rails and hardware constants, read from ``boards/*.toml``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Annotated, Any

from powerctl.board_files import UNKNOWN_RELEASE, canonical_name, read_board, release_of, version
from powerctl.board_files import board_names as board_names
from powerctl.board_files import releases as releases
from powerctl.cost_model import Hardware
from powerctl.errors import InvalidInput, UnknownName
from powerctl.fields import Count, Positive, Range, Size, build, checked
from powerctl.modes import AXES, ModeSpace, PowerMode
from powerctl.reading import misread

_Ladder = Annotated[tuple[Annotated[int, Range(1, 1e12)], ...], Range(1, 1000)]
_MOST_MODES = 10**8


NUMBER_FORMATS = ("fp32", "tf32", "fp16", "int8")


@dataclass(frozen=True)
class Preset:
    """A predefined mode of nvpmodel, resolved to a mode of the board's space."""

    id: int
    name: str
    mode: PowerMode
    is_default: bool
    tpc_pg_mask: int

    @cached_property
    def power_w(self) -> float:
        """The watts that its name promises; infinite for MAXN, which promises none."""
        watts = re.search(r"(\d+)W", self.name)
        return float(watts[1]) if watts else math.inf


@dataclass(frozen=True)
class Rail:
    """A channel of the power monitor; `in_total` says that the module's power counts it."""

    label: str
    address: str
    channel: int
    shunt_mohm: float | None
    in_total: bool


@dataclass(frozen=True)
class Board:
    """A Jetson board under one release of its board support package.

    Attributes
    ----------
    name : str
        Catalogue name, such as ``orin-agx``.
    l4t : str
        The L4T release from which on these axes hold; frequency tables change between releases.
        ``unknown`` for a board found without one.
    space : ModeSpace
        All power modes.
    presets : tuple of Preset
        The modes of nvpmodel.
    rails : tuple of Rail
        The power monitor's channels.
    hardware : Hardware
        Constants of the board's cost model: speeds, bandwidths and power.
    operations_per_gpu_cycle : mapping of str to float
        Of the number formats that have units of their own: dense operations of the whole GPU.
    is_catalogued : bool
        Whether it is described by a file; else by what was found on it.
    """

    name: str
    title: str
    l4t: str
    modules: tuple[str, ...]
    cuda_cores: int
    cpu_architecture: str
    space: ModeSpace
    presets: tuple[Preset, ...]
    rails: tuple[Rail, ...]
    hardware: Hardware
    operations_per_gpu_cycle: Mapping[str, float]
    is_catalogued: bool = True

    @property
    def label(self) -> str:
        """Name and release, and what a newer one changes, which by default is not taken."""
        label = f"{self.name}, L4T {self.l4t}"
        if self.l4t == UNKNOWN_RELEASE or not self.is_catalogued:
            return label
        newest = releases(self.name)[-1]
        if version(newest) <= version(self.l4t):
            return label
        top, own = (board.space.gpu_hz[-1] for board in (load_board(self.name, newest), self))
        clocks = "other clocks" if top == own else f"GPU to {top // 10**6} MHz"
        return f"{label} (--l4t {newest}: {clocks})"

    def __hash__(self) -> int:
        return hash((self.name, self.l4t))  # quick: boards are keys of caches

    def operations(self, number_format: str) -> float:
        """Dense operations of a GPU cycle in a number format: of ``"fp32"``, 2 per CUDA core.

        A format without units of its own runs as FP32 does.
        """
        if number_format not in NUMBER_FORMATS:
            raise UnknownName("number format", number_format, NUMBER_FORMATS)
        return self.operations_per_gpu_cycle.get(number_format, 2.0 * self.cuda_cores)

    def peak_flops(self, gpu_hz: float | None = None, number_format: str = "fp32") -> float:
        """Operations a second of the GPU at a clock, by default the highest, in a number format."""
        return self.operations(number_format) * (gpu_hz or self.space.gpu_hz[-1])

    @property
    def peaks(self) -> dict[str, float]:
        """Operations a second at the highest clock, of FP32 and of formats with their own units."""
        formats = ("fp32", *self.operations_per_gpu_cycle)
        return {name: self.peak_flops(number_format=name) for name in formats}

    def peak_bandwidth(self, mem_hz: float | None = None) -> float:
        """Bytes/s of the DRAM at a memory clock, by default the highest."""
        return self.hardware.bytes_per_mem_cycle * (mem_hz or self.space.mem_hz[-1])

    def preset(self, name: str) -> Preset:
        """The preset of a number or a name, in any case: ``30W`` as well as ``MODE_30W``."""
        for preset in self.presets:
            if _short(name) == _short(preset.name) or name == str(preset.id):
                return preset
        raise UnknownName(f"preset of {self.name}", name, [p.name for p in self.presets])

    def preset_within(self, power_limit_w: float) -> Preset:
        """The preset of most power within a limit, by the watts of its name; else the lowest one.

        MAXN promises nothing, and is only within no limit (infinite). Of presets of one power it is
        that of the highest GPU clock, then of most cores.
        """
        limit_w = max(power_limit_w, min(preset.power_w for preset in self.presets))
        return max(
            (preset for preset in self.presets if preset.power_w <= limit_w),
            key=lambda preset: (preset.power_w, preset.mode.gpu_hz, preset.mode),
        )

    def mode(self, text: str) -> PowerMode:
        """The mode of a preset's name, or as it is written; see `ModeSpace.parse`."""
        named = {_short(preset.name): preset.mode for preset in self.presets}
        try:
            return named.get(_short(text)) or self.space.parse(text)
        except InvalidInput as error:
            presets = ", ".join(preset.name for preset in self.presets)
            raise InvalidInput(f"{error}; or name a preset: {presets}") from None


def _short(name: str) -> str:
    return name.upper().removeprefix("MODE_")


_FOUND: dict[tuple[str, str | None], Board] = {}


def keep_found(board: Board) -> None:
    """Let `load_board` find a board as it was found on a machine, for the life of this process.

    For what no file describes: a board that the catalogue lacks, or one of an unknown release,
    whose axes are the kernel's.
    """
    _FOUND[board.name, board.l4t] = board
    if not board.is_catalogued:
        _FOUND[board.name, None] = board


def load_board(name: str, l4t: str | None = None) -> Board:
    """A board of the catalogue, of a ``.toml`` file in the same form, or of others.

    Parameters
    ----------
    name : str
        Catalogue name or alias, such as ``orin-agx``; the path of a file; or what others call it.
        With a release where no other is given: ``orin-nano@36.4``.
    l4t : str, optional
        L4T release such as ``"35.3.1"``; by default the oldest of the catalogue: the one that the
        published measurements were made with, and at whose clocks the constants of the cost model
        hold. At the clocks of newer ones it extrapolates.

    Raises
    ------
    UnknownName
        If there is no such board.
    InvalidInput
        If the release is older than the oldest known, or the file describes no board.
    """
    found = _FOUND.get((name, l4t))
    return _load(name, l4t) if found is None else found


@cache
def _load(name: str, l4t: str | None) -> Board:
    if at := re.fullmatch(rf"(.+)@([\d.]+|{UNKNOWN_RELEASE})", name):
        name, l4t = at[1], l4t or at[2]
    canonical = canonical_name(name)
    data = read_board(canonical)
    with misread(f"board {name}"):
        board = board_of(canonical, data, release_of(canonical, l4t))
    return replace(board, l4t=UNKNOWN_RELEASE) if l4t == UNKNOWN_RELEASE else board


def board_of(name: str, data: Mapping[str, Any], release: Mapping[str, Any]) -> Board:
    """A board of a file's content, under one of its releases."""
    space = ModeSpace(*(checked(axis, release[axis], _Ladder) for axis in AXES), name=name)
    if len(space) > _MOST_MODES:
        raise InvalidInput(
            f"{len(space):.2g} modes are more than the {_MOST_MODES:.0e} there may be"
        )
    total = data["total_power_rails"]
    return Board(
        name=name,
        title=checked("title", data["title"], str),
        l4t=release["l4t"],
        modules=tuple(data["modules"]),
        cuda_cores=checked("cuda_cores", data["cuda_cores"], Size),
        cpu_architecture=checked("cpu_architecture", data["cpu_architecture"], str),
        space=space,
        presets=tuple(_preset(space, entry) for entry in release["preset"]),
        rails=tuple(_rail(entry, total) for entry in data["rail"]),
        hardware=build(Hardware, data["hardware"], "hardware"),
        operations_per_gpu_cycle=_operations(data.get("operations_per_gpu_cycle", {})),
    )


def _operations(data: Any) -> Mapping[str, float]:
    where = "operations_per_gpu_cycle"
    found: Mapping[str, float] = checked(where, data, Mapping[str, Positive])
    for name in found:
        if name not in NUMBER_FORMATS[1:]:
            raise UnknownName(f"number format of {where}", name, NUMBER_FORMATS[1:])
    return found


def _preset(space: ModeSpace, entry: Mapping[str, Any]) -> Preset:
    limits = [entry.get(axis) for axis in AXES]
    return Preset(
        id=checked("preset id", entry["id"], Count),
        name=checked("preset name", entry["name"], str),
        mode=space.capped(limits),
        is_default=entry.get("default", False),
        tpc_pg_mask=entry.get("tpc_pg_mask", 0),
    )


def _rail(entry: Mapping[str, Any], total: list[str]) -> Rail:
    return Rail(
        label=entry["label"],
        address=entry["address"],
        channel=entry["channel"],
        shunt_mohm=entry.get("shunt_mohm"),
        in_total=entry["label"] in total,
    )
