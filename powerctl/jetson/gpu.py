"""The GPU: found whatever its name is, and its clock set though it may be asleep."""

from __future__ import annotations

from dataclasses import dataclass

from powerctl.jetson.sysfs import ClockLimits, Sysfs

_NAMES = ("gv11b", "gp10b", "ga10b", "gpu")
_DOMAIN = "gpu-gpc-"  # of the graphics engines: a Thor's GPU is a PCI device, and has one for video
_ALIASES = ("sys/devices/platform/gpu.0", "sys/devices/gpu.0")


@dataclass(frozen=True)
class Gpu:
    """The files of the integrated GPU: its clock, and its power management.

    Attributes
    ----------
    devfreq : str
        Folder of its clock.
    device : str
        Folder of its power management.
    """

    devfreq: str
    device: str

    @property
    def limits(self) -> ClockLimits:
        """The files of the limits of its clock, in Hz."""
        return ClockLimits(f"{self.devfreq}/min_freq", f"{self.devfreq}/max_freq")

    @property
    def power_control(self) -> str:
        """The file that keeps it awake: ``on`` or ``auto``."""
        return f"{self.device}/power/control"

    def files(self, sysfs: Sysfs) -> list[str]:
        """The files that setting its clock may write."""
        return [p for p in (self.power_control, *self.limits.files) if sysfs.exists(p)]

    def frequencies(self, sysfs: Sysfs) -> tuple[int, ...]:
        """The clocks in Hz that the kernel lists, ascending."""
        return sysfs.clocks_if(f"{self.devfreq}/available_frequencies")

    def set(self, sysfs: Sysfs, hz: int) -> None:
        """Pin the clock: awake for the writes, as nvpmodel does it, and as it was after."""
        if self.limits.read(sysfs) == (hz, hz):
            return
        before = sysfs.read_if(self.power_control)
        asleep = before is not None and before != "on"
        if asleep:
            sysfs.write(self.power_control, "on")
        self.limits.write(sysfs, hz, hz)
        if asleep:
            sysfs.write(self.power_control, before)

    def measured(self, sysfs: Sysfs) -> int | None:
        """The clock in Hz, None while the GPU's power is off."""
        return sysfs.int_if(f"{self.devfreq}/cur_freq") or None


def find_gpu(sysfs: Sysfs) -> Gpu | None:
    """The GPU among the devices with a clock of their own; None if it is not there, or gated."""
    for path in sysfs.find("sys/class/devfreq/*"):
        name = sysfs.read_if(f"{path}/device/of_node/name") or ""
        compatible = sysfs.read_if(f"{path}/device/of_node/compatible") or ""
        kinds = {line.rpartition(",")[2] for line in compatible.split()}
        own = path.rpartition("/")[2]  # 17000000.gpu: a container sees no device tree
        kinds |= {name, own.rpartition(".")[2]}
        if kinds & set(_NAMES) or own.startswith(_DOMAIN):
            return Gpu(sysfs.resolve(path), sysfs.resolve(f"{path}/device"))
    return None


def railgate(sysfs: Sysfs) -> str | None:
    """The file that lets the GPU's power be cut; while it is, the GPU may not be listed."""
    for alias in _ALIASES:
        if sysfs.exists(f"{alias}/railgate_enable"):
            return sysfs.resolve(f"{alias}/railgate_enable")
    return None
