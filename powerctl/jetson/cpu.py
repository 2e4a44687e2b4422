"""Cores and CPU clocks: which are online, their policies, and their limits."""

from __future__ import annotations

from contextlib import suppress
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
    def name(self) -> str:
        """The name of its folder, such as ``policy4``."""
        return self.path.rpartition("/")[2]

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
            cpus: tuple[int, ...] = ()
            with suppress(OSError):
                cpus = parse_cpu_list(self._sysfs.read(f"{path}/affected_cpus"))
            if cpus:
                found.append(FrequencyPolicy(path, cpus))
        return sorted(found, key=lambda policy: policy.cpus)

    def without_clock(self) -> tuple[int, ...]:
        """The cores that are on and in none of the policies that can be read."""
        clocked = {number for policy in self.policies() for number in policy.cpus}
        return tuple(number for number in self.online() if number not in clocked)

    def frequencies(self) -> tuple[int, ...]:
        """The clocks in kHz that every policy offers, ascending.

        Raises
        ------
        DeviceUnavailable
            If the kernel lists none.
        """
        listed = "scaling_available_frequencies"
        ladders = [
            set(self._sysfs.clocks_if(f"{policy.path}/{listed}")) for policy in self.policies()
        ]
        common = set.intersection(*ladders) if ladders else set()
        if not common:
            raise DeviceUnavailable(
                f"/{_CPU}/cpufreq lists no clocks that all cores share; is this a Jetson?"
            )
        return tuple(sorted(common))

    def ceiling(self) -> int:
        """The highest clock in kHz that a core may take now."""
        return max(policy.limits.read(self._sysfs)[1] for policy in self.policies())

    def clock(self, policy: FrequencyPolicy) -> int | None:
        """The clock in kHz that its cycle counters show, None if they do not; only root may look.

        ``scaling_cur_freq`` is no substitute: it repeats what was asked for.
        """
        return self._sysfs.int_if(f"{policy.path}/cpuinfo_cur_freq") or None

    def measured(self) -> dict[str, int]:
        """Clock in kHz of each policy by its name, of those whose counters can be read."""
        clocks = ((policy.name, self.clock(policy)) for policy in self.policies())
        return {name: khz for name, khz in clocks if khz is not None}
