"""What a board lets us set, enumerated from its kernel and never assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from powerctl.axes import ModeAxes
from powerctl.errors import DeviceUnavailable
from powerctl.jetson.container import CONTAINER_OPTIONS, is_container
from powerctl.jetson.cpu import Cpu
from powerctl.jetson.gpu import Gpu, find_gpu, railgate
from powerctl.jetson.identity import CANNOT_BE_SEEN, HOW_TO_TELL, Identity, identify
from powerctl.jetson.memory_clock import MemoryClock, find_memory
from powerctl.jetson.sysfs import Sysfs

_GPU_DRIVERS = ("nvidia", "nvgpu")
_SEND_A_REPORT = "this kernel shows it elsewhere: send what powerctl doctor --report FILE writes"


@dataclass(frozen=True)
class Missing:
    """Something that is not there or may not be touched, and what mends it."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Discovery:
    """What was found on a board.

    Attributes
    ----------
    identity : Identity
        Which board it is.
    cores : tuple of int
        The numbers of cores that can be online: 1, 2, ...
    cpu_khz, gpu_hz, mem_hz : tuple of int
        Clocks that can be set, ascending; empty where there are none.
    gpu, memory : Gpu, MemoryClock or None
        Where they are set.
    railgate : str or None
        The file that cuts the GPU's power.
    missing : tuple of Missing
        What prevents modes from being set.
    """

    identity: Identity
    cores: tuple[int, ...]
    cpu_khz: tuple[int, ...]
    gpu_hz: tuple[int, ...]
    mem_hz: tuple[int, ...]
    gpu: Gpu | None
    memory: MemoryClock | None
    railgate: str | None
    missing: tuple[Missing, ...]

    @property
    def gpu_is_gated(self) -> bool:
        """Whether the GPU's power is off, so that its clock is not to be seen."""
        return self.gpu is None and self.railgate is not None

    def axes(self) -> ModeAxes:
        """What each axis can be.

        Raises
        ------
        DeviceUnavailable
            If an axis is missing; the message names the first, and what mends it.
        """
        if self.missing:
            first = self.missing[0]
            raise DeviceUnavailable(f"{first.what}: {first.remedy}; see all: powerctl doctor")
        name = self.identity.called
        return ModeAxes(self.cores, self.cpu_khz, self.gpu_hz, self.mem_hz, name=name)


def discover(sysfs: Sysfs, identity: Identity | None = None) -> Discovery:
    """Look at a board, which one it is told or said by its device tree; writes nothing."""
    identity = identity or identify(sysfs)
    cpu = Cpu(sysfs)
    missing = [] if identity.is_seen else [Missing(CANNOT_BE_SEEN, HOW_TO_TELL)]
    try:
        cores, cpu_khz = tuple(range(1, len(cpu.present()) + 1)), cpu.frequencies()
    except (OSError, DeviceUnavailable) as error:
        cores, cpu_khz = (), ()
        missing.append(Missing(f"no CPU clocks ({error})", "a Jetson's kernel has cpufreq"))
    gpu, gate, memory = find_gpu(sysfs), railgate(sysfs), find_memory(sysfs)
    gpu_hz = gpu.frequencies(sysfs) if gpu else ()
    mem_hz = memory.rates(sysfs, identity.mem_hz()) if memory else ()
    missing += _missing_clocks(sysfs, gpu_hz, mem_hz, gpu, gate)
    missing += _unreadable(sysfs, cpu, gpu, memory)
    return Discovery(
        identity=identity,
        cores=cores,
        cpu_khz=cpu_khz,
        gpu_hz=gpu_hz,
        mem_hz=mem_hz,
        gpu=gpu,
        memory=memory,
        railgate=gate,
        missing=tuple(missing),
    )


def _missing_clocks(
    sysfs: Sysfs,
    gpu_hz: tuple[int, ...],
    mem_hz: tuple[int, ...],
    gpu: Gpu | None,
    gate: str | None,
) -> list[Missing]:
    missing = []
    if gpu is None and gate is not None:
        missing.append(Missing("the GPU's power is off", f"wake it: echo 0 | sudo tee /{gate}"))
    elif not gpu_hz:
        has_driver = any(sysfs.exists(f"sys/module/{name}") for name in _GPU_DRIVERS)
        remedy = _SEND_A_REPORT if has_driver else "load NVIDIA's GPU driver"
        missing.append(Missing("no GPU clock in /sys/class/devfreq", remedy))
    if not mem_hz:
        missing.append(
            Missing("the memory clock in /sys/kernel/debug cannot be reached", _to_debugfs(sysfs))
        )
    return missing


def _unreadable(
    sysfs: Sysfs, cpu: Cpu, gpu: Gpu | None, memory: MemoryClock | None
) -> Iterator[Missing]:
    """What is there and does not say how it is set, so that it could not be brought back.

    Of some kernels only a look shows it: locked down, or in a container, they list files and
    refuse to read them.
    """
    limits = {
        "the CPU's clocks": [file for policy in cpu.policies() for file in policy.limits.files],
        "the GPU's clock": gpu.limits.files if gpu else (),
        "the memory clock": (memory.rate, *memory.files(sysfs)) if memory else (),
    }
    remedy = "run as root, outside of containers; the kernel may be locked down"
    for what, files in limits.items():
        for path in files:
            try:
                sysfs.read_int(path)
            except OSError as error:
                yield Missing(f"{what} cannot be read: {error}", remedy)
                break


def _to_debugfs(sysfs: Sysfs) -> str:
    """What lets the memory clock be reached, by what there is of debugfs."""
    if is_container(sysfs):
        return CONTAINER_OPTIONS
    if " /sys/kernel/debug debugfs " not in (sysfs.read_if("proc/mounts") or ""):
        return "run as root, and: mount -t debugfs none /sys/kernel/debug"
    if not sysfs.exists("sys/kernel/debug/clk"):
        return "run as root, or through the daemon: debugfs is mounted, and root's"
    return _SEND_A_REPORT
