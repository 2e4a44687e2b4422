"""Cores and CPU clocks: which are online, their policies, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from powerctl.errors import DeviceUnavailable
from powerctl.jetson.sysfs import ClockLimits, Sysfs, parse_cpu_list

_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True)
class FrequencyPolicy:
    """Cores that share a clock: a cluster, or on newer kernels a single core."""

    path: str
    cpus: tuple[int, ...]

    @property
    def limits(self) -> ClockLimits:
        """The files of the limits of its clock, in kHz."""
        return ClockLimits(f"{self.path}/scaling_min_freq", f"{self.path}/scaling_max_freq")


class Cpu:
    """The cores of a board and their clocks.

    Parameters
    ----------
    sysfs : Sysfs
        The kernel's files.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    def present(self) -> tuple[int, ...]:
        """Numbers of the cores that the board has."""
        return parse_cpu_list(self._sysfs.read(f"{_CPU}/present"))

    def online(self) -> tuple[int, ...]:
        """Numbers of the cores that are on."""
        return parse_cpu_list(self._sysfs.read(f"{_CPU}/online"))

    def switches(self) -> list[str]:
        """The files that turn cores on and off; the first core's is left alone, it must stay on."""
        paths = [f"{_CPU}/cpu{number}/online" for number in self.present() if number != 0]
        return [path for path in paths if self._sysfs.exists(path)]

    def switch(self, number: int, *, on: bool) -> None:
        """Turn a core on or off."""
        self._sysfs.write(f"{_CPU}/cpu{number}/online", int(on))

    def policies(self) -> list[FrequencyPolicy]:
        """The policies that have a core online: others have no clock to set, or no folder."""
        found = []
        for path in self._sysfs.find(f"{_CPU}/cpufreq/policy*"):
            cpus = parse_cpu_list(self._sysfs.read_if(f"{path}/affected_cpus") or "")
            if cpus:
                found.append(FrequencyPolicy(path, cpus))
        return sorted(found, key=lambda policy: policy.cpus)

    def frequencies(self) -> tuple[int, ...]:
        """The clocks in kHz that every policy offers, ascending.

        Raises
        ------
        DeviceUnavailable
            If the kernel lists none.
        """
        ladders = [self._ladder(policy) for policy in self.policies()]
        common = set.intersection(*ladders) if ladders else set()
        if not common:
            raise DeviceUnavailable(
                f"/{_CPU}/cpufreq lists no clocks that all cores share; is this a Jetson?"
            )
        return tuple(sorted(common))

    def _ladder(self, policy: FrequencyPolicy) -> set[int]:
        text = self._sysfs.read_if(f"{policy.path}/scaling_available_frequencies") or ""
        return {int(word) for word in text.split()}

    def ceiling(self) -> int:
        """The highest clock in kHz that a core may take now."""
        return max(policy.limits.read(self._sysfs)[1] for policy in self.policies())

    def measured(self) -> dict[str, int]:
        """Clock in kHz that each policy's cycle counters show; only root may look.

        ``scaling_cur_freq`` is no substitute: it repeats what was asked for.
        """
        shown = {}
        for policy in self.policies():
            khz = self._sysfs.int_if(f"{policy.path}/cpuinfo_cur_freq")
            if khz:
                shown[policy.path.rpartition("/")[2]] = khz
        return shown
