"""A look at a board that changes nothing: what there is, what may be set, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.cpu import Cpu
from powerctl.jetson.discovery import Discovery, Missing, discover
from powerctl.jetson.journal import Journal, holder
from powerctl.jetson.nvpmodel import Configuration, read_configuration, running_preset
from powerctl.jetson.rails import RailPower, find_rails
from powerctl.jetson.sysfs import Sysfs
from powerctl.jetson.throttling import Throttling, read_throttling
from powerctl.modes import ModeSpace


@dataclass(frozen=True)
class Axis:
    """One axis of the modes: its values, the limits in force, and whether this process may set it.

    Attributes
    ----------
    name : str
        ``cores``, ``cpu_khz``, ``gpu_hz`` or ``mem_hz``.
    values : tuple of int
        Ascending; empty if it was not found.
    in_force : str
        In words.
    settable : bool
        Whether every file that sets it may be written.
    """

    name: str
    values: tuple[int, ...]
    in_force: str
    settable: bool


@dataclass(frozen=True)
class PresetReport:
    """A preset of nvpmodel: the mode it stands for, where that is rounded, and what it needs."""

    id: int
    name: str
    is_running: bool
    mode: str | None
    rounded: tuple[str, ...]
    reboot: str | None


@dataclass(frozen=True)
class Report:
    """What the doctor found; `ok` if modes can be applied by this process.

    Attributes
    ----------
    model, board, l4t, jetpack
        Which board it is; None for what is unknown.
    axes : tuple of Axis
        What can be set.
    presets : tuple of PresetReport
        Of the installed configuration.
    masks : dict of str to int
        Power gating in force: parts of the GPU that are off until a reboot in another preset.
    rails : dict of str to float
        Watts by rail.
    total_rails : tuple of str
        The rails that make up the module's power.
    throttling : Throttling
        Heat and over-current.
    throttles_now : str
        In words; empty if it does not.
    controlled_by : str or None
        The process that controls the board.
    left_changed : int
        Files that a killed controller left changed, to be restored.
    missing : tuple of Missing
        What is not there, and what mends it.
    """

    model: str
    parts: tuple[str, ...]
    board: str | None
    l4t: str | None
    jetpack: str | None
    axes: tuple[Axis, ...]
    presets: tuple[PresetReport, ...]
    masks: dict[str, int]
    rails: dict[str, float]
    total_rails: tuple[str, ...]
    throttling: Throttling
    throttles_now: str
    controlled_by: str | None
    left_changed: int
    missing: tuple[Missing, ...]

    @property
    def ok(self) -> bool:
        """Whether this process can apply modes and measure them."""
        return not self.missing and all(axis.settable for axis in self.axes)

    @property
    def total_w(self) -> float | None:
        """Watts of the module, None if its rails are not all there."""
        return sum(self.rails[label] for label in self.total_rails) if self.total_rails else None


def examine(sysfs: Sysfs) -> Report:
    """Look at a board; nothing is written, and what cannot be read is reported as missing."""
    found = discover(sysfs)
    missing = list(found.missing)
    axes = _axes(sysfs, found)
    if any(axis.values and not axis.settable for axis in axes):
        names = ", ".join(axis.name for axis in axes if axis.values and not axis.settable)
        missing.append(Missing(f"this user may not set {names}", "run as root, or use the daemon"))
    rails, total_rails = _rails(sysfs, missing)
    throttling = read_throttling(sysfs)
    controller = holder(sysfs)
    left = 0 if controller else len(Journal(sysfs).found)
    if left:
        missing.append(
            Missing(f"a killed controller left up to {left} files changed", "sudo powerctl restore")
        )
    return Report(
        model=found.identity.model,
        parts=found.identity.parts,
        board=found.identity.name,
        l4t=found.identity.l4t,
        jetpack=found.identity.jetpack,
        axes=axes,
        presets=_presets(sysfs, found, missing),
        masks=found.gpu.masks(sysfs) if found.gpu else {},
        rails=rails,
        total_rails=total_rails,
        throttling=throttling,
        throttles_now=throttling.now(),
        controlled_by=controller,
        left_changed=left,
        missing=tuple(missing),
    )


def _axes(sysfs: Sysfs, found: Discovery) -> tuple[Axis, ...]:
    cpu, gpu, memory = Cpu(sysfs), found.gpu, found.memory

    def may_write(paths: list[str]) -> bool:
        return bool(paths) and all(sysfs.may_write(path) for path in paths)

    axes = []
    if found.cpu_khz:
        limits = [policy.limits for policy in cpu.policies()]
        shown = sorted({_span(limit.read(sysfs), 1000) for limit in limits})
        files = [path for limit in limits for path in limit.files]
        online = ",".join(map(str, cpu.online()))
        axes.append(Axis("cores", found.cores, f"online {online}", may_write(cpu.switches())))
        axes.append(Axis("cpu_khz", found.cpu_khz, "; ".join(shown), may_write(files)))
    if gpu:
        span = _span(gpu.limits.read(sysfs), 1_000_000)
        axes.append(Axis("gpu_hz", found.gpu_hz, span, may_write(gpu.files(sysfs))))
    if memory:
        rate = memory.measured(sysfs)
        held = "held" if memory.is_held(sysfs) else "floating"
        now = "unknown" if rate is None else f"{rate / 1e6:g} MHz, {held}"
        axes.append(Axis("mem_hz", found.mem_hz, now, may_write(memory.files(sysfs))))
    return tuple(axes)


def _span(limits: tuple[int, int], per_mhz: int) -> str:
    return f"{limits[0] / per_mhz:g} to {limits[1] / per_mhz:g} MHz"


def _rails(sysfs: Sysfs, missing: list[Missing]) -> tuple[dict[str, float], tuple[str, ...]]:
    watts = {}
    for rail in find_rails(sysfs):
        try:
            watts[rail.label] = rail.power_w(sysfs)
        except OSError as error:
            missing.append(Missing(f"rail {rail.label} does not answer ({error})", "try again"))
    try:
        return watts, tuple(label for label in RailPower(sysfs).labels if label in watts)
    except DeviceUnavailable as error:
        remedy = "load the driver ina3221 (JetPack 4: ina3221x)"
        missing.append(Missing(f"no power of the module: {error}", remedy))
        return watts, ()


def _presets(sysfs: Sysfs, found: Discovery, missing: list[Missing]) -> tuple[PresetReport, ...]:
    try:
        configuration = read_configuration(sysfs)
    except InvalidInput as error:
        missing.append(Missing(f"nvpmodel's configuration is not readable: {error}", "mend it"))
        return ()
    if configuration is None:
        return ()
    return _described(configuration, running_preset(sysfs), found, sysfs)


def _described(
    configuration: Configuration, running: int | None, found: Discovery, sysfs: Sysfs
) -> tuple[PresetReport, ...]:
    space = None
    if found.cpu_khz and found.gpu_hz and found.mem_hz:
        space = ModeSpace(found.cores, found.cpu_khz, found.gpu_hz, found.mem_hz)
    masks = found.gpu.masks(sysfs) if found.gpu else {}
    return tuple(
        PresetReport(
            id=preset.id,
            name=preset.name,
            is_running=preset.id == running,
            mode=str(preset.mode(space)) if space else None,
            rounded=tuple(preset.rounding(space)) if space else (),
            reboot=preset.needs_reboot(masks),
        )
        for preset in configuration.presets
    )
