"""NVIDIA's power presets: the installed configuration file, what it means, and switching."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powerctl.axes import ModeAxes, PowerMode
from powerctl.errors import InvalidInput, ModeNotInForce, UnknownName
from powerctl.jetson.configuration_owner import not_of_this_board
from powerctl.jetson.discovery import Discovery
from powerctl.jetson.sysfs import MASK_ENDING, Sysfs
from powerctl.reading import in_line

CONFIGURATION = "etc/nvpmodel.conf"
_STATUS = "var/lib/nvpmodel/status"
_NAME_LIMIT = 31
_NEXT_KERNEL = "_KNEXT"  # ends the arguments whose files are those of JetPack 6 and later
_HEADER = re.compile(r"<\s+([A-Z_]+)((?:\s+[A-Z_]+=[^\s=]+)*)\s+>")
_SECTIONS = {
    "PARAM": {"TYPE", "NAME"},
    "POWER_MODEL": {"ID", "NAME"},
    "PM_CONFIG": {"DEFAULT"},
    "FAN_CONFIG": {"DEFAULT"},
}
_ASKS_FOR_REBOOT = "Reboot required"  # says nvpmodel for any change, once the GPU has been used
_PER_MHZ = {"cpu": 1e3, "gpu": 1e6, "memory": 1e6}


@dataclass(frozen=True)
class InstalledPreset:
    """A power model of the file: what nvpmodel writes, by parameter and argument.

    Attributes
    ----------
    id, name
        As ``nvpmodel -m ID`` takes it and ``nvpmodel -q`` shows it.
    values : dict of (str, str) to str
        Such as ``("GPU", "MAX_FREQ"): "612000000"``.
    """

    id: int
    name: str
    values: Mapping[tuple[str, str], str]

    @property
    def cores(self) -> int | None:
        """Cores online, None if it leaves them; a first one that it does not name is always on."""
        states = {core: v for (name, core), v in self.values.items() if name == "CPU_ONLINE"}
        if not states:
            return None
        return list(states.values()).count("1") + ("CORE_0" not in states) or None

    def limits(self) -> tuple[int | None, int | None, int | None, int | None]:
        """The highest cores, kHz of CPU, Hz of GPU and of memory; None for no limit."""
        cpu = [
            _limit(value)
            for (name, argument), value in self.values.items()
            if name.startswith("CPU_") and argument == "MAX_FREQ"
        ]
        finite = [khz for khz in cpu if khz is not None]
        gpu = _limit(self.values.get(("GPU", "MAX_FREQ"), "-1"))
        memory = _limit(self.values.get(("EMC", "MAX_FREQ"), "-1"))
        return (self.cores, min(finite, default=None), gpu, memory)

    def mode(self, space: ModeAxes) -> PowerMode:
        """The mode of a space that it stands for."""
        return space.capped(self.limits())

    def rounding(self, space: ModeAxes) -> list[str]:
        """Where the board runs at another clock than the file says, in words."""
        said = []
        mode = self.mode(space)
        names = ("cores", *_PER_MHZ)
        for axis, limit, value in zip(names, self.limits(), mode.values, strict=True):
            if limit is not None and limit != value:
                unit = _PER_MHZ.get(axis, 1)
                mhz = " MHz" if axis in _PER_MHZ else ""
                said.append(f"{axis} {limit / unit:g} -> {value / unit:g}{mhz}")
        return said

    def masks(self) -> dict[str, int]:
        """The power-gating masks that it sets."""
        return {
            argument.lower(): _number(value)
            for (_, argument), value in self.values.items()
            if _is_mask(argument)
        }

    def needs_reboot(self, running: Mapping[str, int | None]) -> str | None:
        """Why a switch to it needs a reboot, or may; None if it does not.

        Parameters
        ----------
        running : mapping of str to int or None
            The masks in force; see `NvpmodelConfiguration.masks_in_force`.
        """
        said = [
            f"{name} {'cannot be read' if running[name] is None else running[name]} -> {mask}"
            for name, mask in self.masks().items()
            if name in running and running[name] != mask
        ]
        return f"other parts of the GPU have power ({', '.join(said)})" if said else None


@dataclass(frozen=True)
class NvpmodelConfiguration:
    """Presets of an nvpmodel configuration file, and the files that they write.

    Attributes
    ----------
    paths : dict of (str, str) to str
        The file that each argument of each parameter is written to.
    presets : tuple of InstalledPreset
        In the file's order.
    default : int or None
        The preset that a board starts with.
    """

    paths: Mapping[tuple[str, str], str]
    presets: tuple[InstalledPreset, ...]
    default: int | None

    def preset(self, name: str) -> InstalledPreset:
        """The preset of a name (upper or lower case) or number."""
        for preset in self.presets:
            if name.upper() == preset.name.upper() or name == str(preset.id):
                return preset
        raise UnknownName("preset of nvpmodel", name, [preset.name for preset in self.presets])

    def masks_in_force(self, sysfs: Sysfs) -> dict[str, int | None]:
        """The power-gating masks: which parts of the GPU are off until a reboot.

        They are read where the file says they are written, which a GPU without power leaves in
        place. A file that is there and cannot be read gives None; one that is not is left out.
        """
        shown = {}
        for (_, argument), path in self.paths.items():
            name, file = argument.removesuffix(_NEXT_KERNEL), path.lstrip("/")
            if _is_mask(name) and sysfs.exists(file):
                shown[name.lower()] = sysfs.int_if(file)
        return shown


def read_configuration(sysfs: Sysfs) -> NvpmodelConfiguration | None:
    """The installed configuration, None where nvpmodel is not installed.

    Raises
    ------
    InvalidInput
        If the file cannot be read, is not in nvpmodel's format, or is of another board.
    """
    try:
        text = sysfs.read(CONFIGURATION)
    except FileNotFoundError:
        if not sysfs.is_link(CONFIGURATION):
            return None
        target = sysfs.resolve(CONFIGURATION)
        raise InvalidInput(f"/{CONFIGURATION} is a link to /{target}, which is not there") from None
    except OSError as error:
        raise InvalidInput(f"/{CONFIGURATION} cannot be read: {error.strerror}") from None
    configuration = parse_configuration(text, f"/{CONFIGURATION}")
    if why := not_of_this_board(sysfs, CONFIGURATION, configuration.paths):
        raise InvalidInput(
            f"{why}; link that of this board, of /etc/nvpmodel, and restart nvpmodel"
        )
    return configuration


def parse_configuration(text: str, source: str = CONFIGURATION) -> NvpmodelConfiguration:
    """Parse a configuration as nvpmodel does, comments at the end of lines and in any order.

    Headers begin in the first column with a space inside the brackets; names have at most 31
    characters; ids are unique; a value must be of a parameter declared above, and clocks and
    masks are numbers: decimal, as the kernel takes them (``0240`` is 240), or hexadecimal.

    Raises
    ------
    InvalidInput
        Naming file, line and defect.
    """
    parser = _Parser(source)
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if content := line.partition("#")[0].rstrip():
            parser.take(number, content)
    parser.check_default()
    return NvpmodelConfiguration(
        parser.paths,
        tuple(InstalledPreset(id, *parser.presets[id]) for id in parser.presets),
        parser.default,
    )


class _Parser:
    """The sections read so far; `take` adds a line to the present one."""

    def __init__(self, source: str) -> None:
        self.paths: dict[tuple[str, str], str] = {}
        self.presets: dict[int, tuple[str, dict[tuple[str, str], str]]] = {}
        self.default: int | None = None
        self._source = source
        self._number = self._default_at = 0
        self._section = ""
        self._param = ""
        self._clocks: set[str] = set()
        self._values: dict[tuple[str, str], str] = {}

    def take(self, number: int, line: str) -> None:
        """Take a line that is not empty, without its comment."""
        self._number = number
        if "<" in line or ">" in line:
            self._take_header(line)
            return
        words = line.split()
        if self._section == "PARAM" and len(words) >= 2:
            self.paths[self._param, words[0]] = words[1]
        elif self._section == "POWER_MODEL" and len(words) == 3:
            self._take_value(words[0], words[1], words[2])
        else:
            raise self._error(f"{line.strip()!r} does not belong here")

    def _take_header(self, line: str) -> None:
        match = _HEADER.fullmatch(line)
        if match is None or match[1] not in _SECTIONS:
            raise self._error(f"{line!r} is not a header such as '< PM_CONFIG DEFAULT=0 >'")
        keys = dict(part.split("=") for part in match[2].split())
        if set(keys) != _SECTIONS[match[1]]:
            raise self._error(f"{match[1]} needs {' and '.join(sorted(_SECTIONS[match[1]]))}")
        self._section = match[1]
        if match[1] == "PARAM":
            self._param = keys["NAME"]
            if keys["TYPE"] == "CLOCK":  # there are FILE, HWMON (a limit of current), and more
                self._clocks.add(self._param)
        elif match[1] == "POWER_MODEL":
            self._begin_preset(self._integer(keys["ID"]), keys["NAME"])
        elif match[1] == "PM_CONFIG":
            self.default, self._default_at = self._integer(keys["DEFAULT"]), self._number

    def check_default(self) -> None:
        """Refuse a default that is none of the presets, which may be written below it."""
        if self.default is not None and self.default not in self.presets:
            self._number = self._default_at
            raise self._error(f"the default is POWER_MODEL {self.default}, which is not there")

    def _begin_preset(self, id: int, name: str) -> None:
        if id in self.presets:
            raise self._error(f"POWER_MODEL {id} is there twice")
        if len(name) > _NAME_LIMIT:
            raise self._error(f"the name {name} has more than {_NAME_LIMIT} characters")
        self._values = {}
        self.presets[id] = (name, self._values)

    def _take_value(self, param: str, argument: str, value: str) -> None:
        if (param, argument) not in self.paths:
            raise self._error(f"{param} {argument} is not declared by a PARAM above")
        if param in self._clocks or _is_mask(argument):
            self._integer(value)
        self._values[param, argument] = value

    def _integer(self, text: str) -> int:
        try:
            return _number(text)
        except ValueError:
            raise self._error(f"{in_line(text)!r} is not a number") from None

    def _error(self, defect: str) -> InvalidInput:
        return InvalidInput(f"{self._source}, line {self._number}: {defect}")


def _number(text: str) -> int:
    """A number as the kernel reads it: a leading zero makes none octal."""
    return int(text, 16 if text.lower().startswith("0x") else 10)


def _is_mask(argument: str) -> bool:
    return argument.lower().endswith(MASK_ENDING)


def _limit(text: str) -> int | None:
    """A limit of the file; -1 and 0 are none."""
    value = _number(text)
    return value if 0 < value < 2**62 else None


def running_preset(sysfs: Sysfs) -> int | None:
    """The id of the preset that nvpmodel set last, None if it says nothing."""
    match = re.search(r"pmode:(\d+)", sysfs.read_if(_STATUS) or "")
    return int(match[1]) if match else None


def switch(sysfs: Sysfs, configuration: NvpmodelConfiguration, preset: InstalledPreset) -> None:
    """Switch to a preset by NVIDIA's own program, if that needs no reboot; it stays switched.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    configuration : NvpmodelConfiguration
        What is installed.
    preset : InstalledPreset
        Of it, to switch to.

    Raises
    ------
    ModeNotInForce
        If it needs a reboot (nothing is done), or nvpmodel does not make the switch.
    """
    why = preset.needs_reboot(configuration.masks_in_force(sysfs))
    if why is not None:
        raise _reboot(preset, why)
    done = sysfs.nvpmodel(preset.id)
    now = running_preset(sysfs)
    if done.returncode == 0 and now == preset.id:
        return
    said = [*done.stderr.splitlines(), *done.stdout.splitlines()]
    if asked := next((line for line in said if _ASKS_FOR_REBOOT in line), ""):
        raise _reboot(preset, in_line(asked))
    raise ModeNotInForce(
        f"nvpmodel -m {preset.id} ended with {done.returncode}, the mode is {now}: {_cause(said)}"
    )


def _reboot(preset: InstalledPreset, why: str) -> ModeNotInForce:
    return ModeNotInForce(
        f"preset {preset.name} needs a reboot: {why}; to have it: sudo nvpmodel -m {preset.id}"
    )


def _cause(said: Sequence[str]) -> str:
    """Why nvpmodel failed: its first error is the cause, and its last line what came of that."""
    lines = [in_line(line) for line in said if line.strip()]
    if not lines:
        return f"it says nothing, and /{_STATUS} is not written (a read-only file system?)"
    first = next((line for line in lines if "ERROR" in line), lines[-1])
    return first if first == lines[-1] else f"{first}; then: {lines[-1]}"


@dataclass(frozen=True)
class PresetReport:
    """A preset of nvpmodel: the mode it stands for, where that is rounded, and what it needs.

    Attributes
    ----------
    id, name
        As nvpmodel has them.
    is_running : bool
        Whether nvpmodel set it last.
    mode : str or None
        The mode; None where the axes are not known.
    rounded : tuple of str
        Where the board runs at another clock than the preset says.
    reboot : str or None
        Why a switch to it needs a reboot; None if it does not.
    """

    id: int
    name: str
    is_running: bool
    mode: str | None
    rounded: tuple[str, ...]
    reboot: str | None


def describe_presets(
    configuration: NvpmodelConfiguration, found: Discovery, sysfs: Sysfs
) -> tuple[PresetReport, ...]:
    """What each preset of a configuration means on a board, in the file's order."""
    axes = None
    if found.cpu_khz and found.gpu_hz and found.mem_hz:
        axes = ModeAxes(found.cores, found.cpu_khz, found.gpu_hz, found.mem_hz)
    masks = configuration.masks_in_force(sysfs)
    running = running_preset(sysfs)
    return tuple(
        PresetReport(
            id=preset.id,
            name=preset.name,
            is_running=preset.id == running,
            mode=str(preset.mode(axes)) if axes else None,
            rounded=tuple(preset.rounding(axes)) if axes else (),
            reboot=preset.needs_reboot(masks),
        )
        for preset in configuration.presets
    )
