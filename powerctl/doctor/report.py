"""A look at a board that changes nothing: what there is, what may be set, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from powerctl.board_files import UNKNOWN_RELEASE, caveat, releases
from powerctl.boards import load_board
from powerctl.daemon.remote import identity_by
from powerctl.doctor.access import Access, look
from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.jetson.container import is_container
from powerctl.jetson.cpu import Cpu
from powerctl.jetson.discovery import Discovery, Missing, discover
from powerctl.jetson.identity import Identity
from powerctl.jetson.journal import WRITABLE, Journal, holder
from powerctl.jetson.nvpmodel import PresetReport, describe_presets, read_configuration
from powerctl.jetson.plausible import PowerCheck, most_power_w
from powerctl.jetson.rails import RailPower, find_rails
from powerctl.jetson.sysfs import ClockLimits, Sysfs
from powerctl.jetson.throttling import Throttling, read_throttling

_REPORT_IT = "do not trust energies here, and send in what powerctl doctor --report FILE writes"


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
        Whether this user may set it: every file may be written, or the daemon does it.
    """

    name: str
    values: tuple[int, ...]
    in_force: str
    settable: bool


@dataclass(frozen=True)
class Report:
    """What the doctor found; `ok` if this user can apply modes.

    Attributes
    ----------
    model, board, l4t, jetpack
        Which board it is; None for what is unknown.
    told_by : str
        Who says which board it is: the device tree, the daemon, or ``--board``.
    notes : tuple of str
        What holds for this board, and hinders nothing.
    axes : tuple of Axis
        What can be set.
    presets : tuple of PresetReport
        Of the installed configuration.
    masks : dict of str to int or None
        Power gating in force, as nvpmodel's files name it: parts of the GPU that are off until a
        reboot in another preset. None for a mask that cannot be read.
    rails : dict of str to float
        Watts by rail.
    total_rails : tuple of str
        The rails that make up the module's power.
    throttling : Throttling
        Heat and over-current.
    throttles_now : str
        In words; empty if it does not.
    controlled_by : str or None
        The process that controls the board; the daemon's while somebody holds a mode through it.
    daemon, group : str
        In words: whether the daemon serves this user, and whether that is in its group.
    left_changed : int
        Files that a killed controller left changed, to be restored.
    missing : tuple of Missing
        What prevents modes from being set, and what mends it.
    unmeasured : tuple of Missing
        What is amiss with power: without it modes can be set, and energies are estimates.
    """

    model: str
    told_by: str
    notes: tuple[str, ...]
    parts: tuple[str, ...]
    board: str | None
    l4t: str | None
    jetpack: str | None
    axes: tuple[Axis, ...]
    presets: tuple[PresetReport, ...]
    masks: dict[str, int | None]
    rails: dict[str, float]
    total_rails: tuple[str, ...]
    throttling: Throttling
    throttles_now: str
    controlled_by: str | None
    daemon: str
    group: str
    left_changed: int
    missing: tuple[Missing, ...]
    unmeasured: tuple[Missing, ...]

    @property
    def ok(self) -> bool:
        """Whether this user can apply modes; without a power monitor too."""
        return not self.missing and all(axis.settable for axis in self.axes)

    @property
    def total_w(self) -> float | None:
        """Watts of the module, None if its rails are not all there."""
        return sum(self.rails[label] for label in self.total_rails) if self.total_rails else None

    @property
    def total_from(self) -> str | None:
        """Where that total is from: the monitor, and the rails that are added up."""
        return f"{RailPower.name}: {' + '.join(self.total_rails)}" if self.total_rails else None


def examine(sysfs: Sysfs, board: str | None = None) -> Report:
    """Look at a board; nothing is written, and what cannot be read is reported as missing.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    board : str, optional
        Which board it is, for where neither a device tree nor a daemon says it.
    """
    access = look(sysfs)
    identity = identity_by(access.seen or {}, sysfs, board)
    found = through_daemon(discover(sysfs, identity), access)
    missing = list(found.missing)
    axes = _axes(sysfs, found, is_served=access.seen is not None)
    if any(axis.values and not axis.settable for axis in axes):
        names = ", ".join(axis.name for axis in axes if axis.values and not axis.settable)
        missing.append(Missing(f"this user may not set {names}", access.remedy))
    unmeasured: list[Missing] = []
    rails, total_rails = _rails(sysfs, identity, unmeasured)
    throttling = read_throttling(sysfs)
    controller = holder(sysfs)
    journal = Journal(sysfs)
    left = 0 if controller else len(journal.found)
    notes = _notes(sysfs, identity)
    presets, masks = _presets(sysfs, found, notes)
    if journal.is_read_only and access.seen is None:
        missing.append(Missing(f"{journal.path.parent} is read-only", WRITABLE))
    if journal.damage or journal.lost:
        lost = journal.damage or f"a journal was damaged, and is kept as {journal.lost}"
        missing.append(
            Missing(
                f"more may be changed than can be restored: {lost}",
                "sudo powerctl restore --as-booted, or restart the board",
            )
        )
    if left:
        missing.append(
            Missing(f"a killed controller left up to {left} files changed", "sudo powerctl restore")
        )
    return Report(
        model=identity.model,
        told_by=identity.told_by,
        notes=tuple(notes),
        parts=identity.parts,
        board=identity.name,
        l4t=identity.l4t,
        jetpack=identity.jetpack,
        axes=axes,
        presets=presets,
        masks=masks,
        rails=rails,
        total_rails=total_rails,
        throttling=throttling,
        throttles_now=throttling.now(),
        controlled_by=controller,
        daemon=access.says,
        group=access.group,
        left_changed=left,
        missing=tuple(missing),
        unmeasured=tuple(unmeasured),
    )


_GPU_NODES = ("dev/nvgpu", "dev/nvhost-gpu", "dev/nvidia0")  # of JetPack 6, 4 and 5, and 7


def _notes(sysfs: Sysfs, identity: Identity) -> list[str]:
    notes = []
    if is_container(sysfs) and not any(sysfs.exists(node) for node in _GPU_NODES):
        notes.append("no GPU in this container: start it with --runtime nvidia")
    if identity.is_seen and identity.name is None:
        notes.append(
            f"{caveat(identity.parts)}; powerctl doctor --report FILE says all that adds it"
        )
    if identity.l4t is None:
        notes.append(
            f"its L4T release is {UNKNOWN_RELEASE}: /etc/nv_tegra_release is not there, and no "
            "daemon tells"
        )
    return notes


def through_daemon(found: Discovery, access: Access) -> Discovery:
    """What was found, with the axes of a daemon: that sees what only root may."""
    if access.seen is None:
        return found
    cores, cpu_khz, gpu_hz, mem_hz = map(tuple, access.seen["axes"])
    return replace(found, cores=cores, cpu_khz=cpu_khz, gpu_hz=gpu_hz, mem_hz=mem_hz, missing=())


def _axes(sysfs: Sysfs, found: Discovery, *, is_served: bool) -> tuple[Axis, ...]:
    cpu, gpu, memory = Cpu(sysfs), found.gpu, found.memory

    def may_write(paths: list[str]) -> bool:
        return is_served or (bool(paths) and all(sysfs.may_write(path) for path in paths))

    axes = []
    if found.cpu_khz:
        limits = [policy.limits for policy in cpu.policies()]
        shown = sorted({_span(sysfs, limit, 1000) for limit in limits})
        files = [path for limit in limits for path in limit.files]
        axes.append(Axis("cores", found.cores, _online(cpu), may_write(_switches(cpu))))
        axes.append(Axis("cpu_khz", found.cpu_khz, "; ".join(shown), may_write(files)))
    if gpu:
        span = _span(sysfs, gpu.limits, 1_000_000)
        axes.append(Axis("gpu_hz", found.gpu_hz, span, may_write(gpu.files(sysfs))))
    if memory or is_served:
        now = "not to be seen by this user"
        if memory and (rate := memory.measured(sysfs)):
            now = f"{rate / 1e6:g} MHz, {'held' if memory.is_held(sysfs) else 'floating'}"
        files = memory.files(sysfs) if memory else []
        axes.append(Axis("mem_hz", found.mem_hz, now, may_write(files)))
    return tuple(axes)


def _switches(cpu: Cpu) -> list[str]:
    """The files that turn cores on and off; none if the list of cores cannot be read."""
    try:
        return cpu.switches()
    except OSError:
        return []


def _online(cpu: Cpu) -> str:
    try:
        return f"online {','.join(map(str, cpu.online()))}"
    except OSError as error:
        return f"cannot be read: {error}"


def _span(sysfs: Sysfs, limits: ClockLimits, per_mhz: int) -> str:
    try:
        low, high = limits.read(sysfs)
    except OSError as error:
        return f"cannot be read: {error}"
    return f"{low / per_mhz:g} to {high / per_mhz:g} MHz"


def _rails(
    sysfs: Sysfs, identity: Identity, amiss: list[Missing]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Watts of each rail that answers, and those of the total if all of it do."""
    watts: dict[str, float] = {}
    for rail in find_rails(sysfs):
        try:
            watts.setdefault(rail.label, rail.power_w(sysfs))
        except OSError as error:
            amiss.append(Missing(f"rail {rail.label} does not answer ({error})", "try again"))
    try:
        total = RailPower(sysfs, identity.total_rule).labels
    except DeviceUnavailable as error:
        remedy = (
            "load the driver ina3221 (JetPack 4: ina3221x); a carrier board without a monitor has "
            "estimated energies"
        )
        amiss.append(Missing(f"no power of the module: {error}", remedy))
        return watts, ()
    if not set(total) <= set(watts):
        return watts, ()
    if identity.name:
        board = load_board(identity.name, releases(identity.name)[-1])
        said = PowerCheck("", most_power_w(board)).amiss(sum(watts[label] for label in total))
        if said:
            amiss.append(Missing(f"the module's power is not plausible: {said}", _REPORT_IT))
    return watts, total


def _presets(
    sysfs: Sysfs, found: Discovery, notes: list[str]
) -> tuple[tuple[PresetReport, ...], dict[str, int | None]]:
    """What is installed of nvpmodel: its presets, and the masks of power gating in force.

    Modes are set without them; what is wrong with its configuration is noted.
    """
    try:
        configuration = read_configuration(sysfs)
    except InvalidInput as error:
        notes.append(f"nvpmodel's presets are not shown: {error}")
        return (), {}
    if configuration is None:
        return (), {}
    return describe_presets(configuration, found, sysfs), configuration.masks_in_force(sysfs)
