"""The rules by which a fake board's kernel takes, clamps, rounds and refuses what is written."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from powerctl.fakes.layout import BPMP, BWMGR, CLK, CPU, HOT_SURFACE_MILLI, SOCTHERM, Layout
from powerctl.modes import PowerMode

_POLICY = re.compile(rf"{CPU}/cpufreq/policy(\d+)/scaling_(min|max)_freq")
_MILLIVOLT = {"VDD_GPU_SOC": 19_000, "VDD_CPU_CV": 19_000}


@dataclass
class FakeState:
    """All that a fake board's kernel knows; what its files show follows from it.

    Attributes
    ----------
    board, l4t, chip, jetpack : str
        What it fakes.
    policies : list of list of int
        The cores that share a clock.
    cpu_khz, gpu_hz, mem_hz : list of int
        The clocks there are.
    rails : list of list
        Label, address, channel, and share of the module's power.
    online : list of int
        1 for a core that is on.
    cpu_limits : dict of str to list of int
        Lowest and highest clock asked for, by the policy's number.
    gpu_limits : list of int
        Likewise, of the GPU.
    ceilings : dict of str to int
        Clocks that throttling forbids to exceed: cpu_khz, gpu_hz, mem_hz.
    forgets : bool
        Whether a policy whose last core goes off starts with full limits when it comes back;
        kernels differ.
    zones : list of list
        Name of each thermal zone, and where it begins to slow the board down and shuts it down,
        in thousandths of a degree; 0 where that is not known.
    celsius : float
        Temperature of all zones.
    sleeps : bool
        Whether the GPU is unused, so that its power is off, and its clock hidden, while
        ``railgate_enable`` is 1.
    """

    board: str
    l4t: str
    chip: str
    jetpack: str
    policies: list[list[int]]
    cpu_khz: list[int]
    gpu_hz: list[int]
    mem_hz: list[int]
    rails: list[list[Any]]
    zones: list[list[Any]]
    online: list[int]
    cpu_limits: dict[str, list[int]]
    gpu_limits: list[int]
    masks: dict[str, int]
    preset: int = 0
    gpu_control: str = "auto"
    railgate: int = 1
    sleeps: bool = False
    forgets: bool = True
    emc_hold: int = 0
    emc_request: int = 0
    emc_enable: int = 1
    emc_cap: int = 0
    ceilings: dict[str, int] = field(default_factory=dict)
    events: int = 0
    cooling: int = 0
    celsius: float = 47.0
    power_w: float = 5.0


class FakeKernel:
    """Applies writes to the state, and shows the state as files.

    Parameters
    ----------
    state : FakeState
        Changed by `write`.
    """

    def __init__(self, state: FakeState) -> None:
        self.state = state
        self.layout = Layout(state.chip, state.jetpack)
        self._cpu_ladder = " ".join(map(str, state.cpu_khz))
        self._takes = self._writable()

    # What is written

    def write(self, path: str, text: str) -> None:
        """Take a write as the kernel does; raises its `OSError`."""
        if path not in self._takes:
            raise _refusal(errno.EACCES if path in self.files() else errno.ENOENT, path)
        self._takes[path](path, text)

    def is_writable(self, path: str) -> bool:
        """Whether the kernel takes writes of a file."""
        return path in self._takes

    @property
    def is_gated(self) -> bool:
        """Whether the GPU's power is off, and its clock hidden."""
        return self.state.sleeps and self.state.railgate == 1

    def _writable(self) -> dict[str, Callable[[str, str], None]]:
        """What takes a write, by the file: it is given the path and the text."""
        layout, cores = self.layout, range(len(self.state.online))
        takes: dict[str, Callable[[str, str], None]] = {
            f"{layout.devfreq}/min_freq": self._limit_gpu,
            f"{layout.devfreq}/max_freq": self._limit_gpu,
            f"{layout.gpu}/power/control": self._control_gpu,
            f"{layout.gpu}/railgate_enable": partial(self._set, "railgate"),
            layout.emc_hold: partial(self._set, "emc_hold"),
            layout.emc_request: partial(self._set, "emc_request"),  # not held, soon forgotten
            layout.emc_cap: self._cap_memory,
        }
        if layout.has_bpmp:
            takes[f"{BPMP}/clk/emc/state"] = partial(self._set, "emc_enable")
        takes |= {f"{CPU}/cpu{core}/online": partial(self._switch, core) for core in cores}
        for number in (str(policy[0]) for policy in self.state.policies):
            folder = f"{CPU}/cpufreq/policy{number}"
            for end in ("min", "max"):
                takes[f"{folder}/scaling_{end}_freq"] = partial(self._limit_cpu, number)
        return takes

    def _set(self, name: str, path: str, text: str) -> None:
        setattr(self.state, name, _number(path, text))

    def _control_gpu(self, path: str, text: str) -> None:
        if text not in ("on", "auto"):
            raise _refusal(errno.EINVAL, path)
        self.state.gpu_control = text

    def _cap_memory(self, path: str, text: str) -> None:
        state = self.state
        state.emc_cap = _number(path, text)
        if self.layout.is_recent:  # shows what the clock rounds it to
            state.emc_cap = _nearest(state.mem_hz, min(state.emc_cap, state.mem_hz[-1]))

    def _switch(self, core: int, path: str, text: str) -> None:
        on = _number(path, text)
        if on not in (0, 1):
            raise _refusal(errno.EINVAL, path)
        if core == 0 and on == 0:
            raise _refusal(errno.EPERM, path)
        self.state.online[core] = on
        for policy in self.state.policies if self.state.forgets else ():
            if core in policy and not any(self.state.online[other] for other in policy):
                ladder = self.state.cpu_khz
                self.state.cpu_limits[str(policy[0])] = [ladder[0], ladder[-1]]

    def _limit_cpu(self, number: str, path: str, text: str) -> None:
        if number not in (str(policy[0]) for policy in self._live()):
            raise _refusal(errno.ENOENT, path)
        wanted = _number(path, text)
        limits = list(self.state.cpu_limits[number])
        limits[path.endswith("max_freq")] = wanted
        self._refuse_crossed(path, limits)
        self.state.cpu_limits[number] = limits

    def _limit_gpu(self, path: str, text: str) -> None:
        if self.is_gated:
            raise _refusal(errno.ENOENT, path)
        is_max = path.endswith("max_freq")
        wanted = _number(path, text)
        if self.state.jetpack != "4":  # quality of service counts in kHz
            wanted = 1000 * (-(-wanted // 1000) if is_max else wanted // 1000)
        limits = list(self.state.gpu_limits)
        limits[is_max] = wanted or (self.state.gpu_hz[-1] if is_max else 0)
        self._refuse_crossed(path, limits)
        self.state.gpu_limits = limits

    def _refuse_crossed(self, path: str, limits: list[int]) -> None:
        """Kernel 4.9 refuses a lowest clock above the highest; from 5.10 on it is clamped."""
        if self.state.jetpack == "4" and limits[0] > limits[1]:
            raise _refusal(errno.EINVAL, path)

    # What is in force

    def cpu_range(self, number: str) -> tuple[int, int]:
        """Limits of a policy in force, clamped to the hardware and to each other."""
        return _clamped(self.state.cpu_limits[number], self.state.cpu_khz)

    def gpu_range(self) -> tuple[int, int]:
        """Limits of the GPU in force."""
        return _clamped(self.state.gpu_limits, self.state.gpu_hz)

    def cpu_khz(self, number: str) -> int:
        """Clock of a busy policy: off the table it is rounded in silence, throttling lowers it."""
        khz = _nearest(self.state.cpu_khz, self.cpu_range(number)[1])
        return _throttled(self.state.cpu_khz, khz, self.state.ceilings.get("cpu_khz"))

    def gpu_hz(self) -> int:
        """Clock of the busy GPU."""
        hz = _nearest(self.state.gpu_hz, self.gpu_range()[1])
        return _throttled(self.state.gpu_hz, hz, self.state.ceilings.get("gpu_hz"))

    def mem_hz(self) -> int:
        """Rate of the memory: held, or as high as it may go under load."""
        state = self.state
        rate = _nearest(state.mem_hz, state.emc_request) if state.emc_hold else state.mem_hz[-1]
        cap = state.emc_cap or state.mem_hz[-1]
        ceiling = min(cap, state.ceilings.get("mem_hz", cap))
        return _throttled(state.mem_hz, rate, ceiling)

    def mode(self) -> PowerMode:
        """The mode that a load runs in now."""
        khz = max(self.cpu_khz(str(policy[0])) for policy in self._live())
        return PowerMode(sum(self.state.online), khz, self.gpu_hz(), self.mem_hz())

    def _live(self) -> list[list[int]]:
        """The policies that have a core online."""
        online = self.state.online
        return [policy for policy in self.state.policies if any(online[core] for core in policy)]

    # What the files show

    def files(self) -> dict[str, str]:
        """Every file whose content can change, with its content."""
        return {
            **self._cpu_files(),
            **({} if self.is_gated else self._devfreq_files()),
            **self._gpu_files(),
            **self._memory_files(),
            **self._throttling_files(),
            **self.rail_files(),
            "var/lib/nvpmodel/status": f"pmode:{self.state.preset:04d}",
        }

    def affected(self, path: str) -> dict[str, str]:
        """The files that a write can change."""
        if match := _POLICY.fullmatch(path):
            policy = next(p for p in self.state.policies if p[0] == int(match[1]))
            return self._policy_files(policy)
        if path.startswith(CPU):
            return self._cpu_files()
        if path.startswith(self.layout.devfreq):
            return self._devfreq_files()
        if path in (self.layout.emc_hold, self.layout.emc_request, self.layout.emc_cap):
            return self._memory_files()
        return self.files()

    def links(self) -> dict[str, str]:
        """Symbolic links that come and go: path to what it points at."""
        links = {
            f"{CPU}/cpu{core}/cpufreq": f"{CPU}/cpufreq/policy{policy[0]}"
            for policy in self._live()
            for core in policy
            if self.state.online[core]
        }
        if not self.is_gated:
            name = self.layout.devfreq.rpartition("/")[2]
            links[f"sys/class/devfreq/{name}"] = self.layout.devfreq
            links[f"{self.layout.gpu}/devfreq_dev"] = self.layout.devfreq
        return links

    def _cpu_files(self) -> dict[str, str]:
        online = self.state.online
        numbers = [core for core, on in enumerate(online) if on]
        files = {f"{CPU}/online": ",".join(map(str, numbers))}
        files |= {f"{CPU}/cpu{core}/online": str(on) for core, on in enumerate(online)}
        for policy in self._live():
            files |= self._policy_files(policy)
        return files

    def _policy_files(self, policy: list[int]) -> dict[str, str]:
        ladder, number = self.state.cpu_khz, str(policy[0])
        folder, (low, high) = f"{CPU}/cpufreq/policy{number}", self.cpu_range(number)
        online = [core for core in policy if self.state.online[core]]
        return {
            f"{folder}/affected_cpus": " ".join(map(str, online)),
            f"{folder}/related_cpus": " ".join(map(str, policy)),
            f"{folder}/scaling_available_frequencies": self._cpu_ladder,
            f"{folder}/scaling_governor": "schedutil",
            f"{folder}/scaling_min_freq": str(low),
            f"{folder}/scaling_max_freq": str(high),
            f"{folder}/scaling_cur_freq": str(high),
            f"{folder}/cpuinfo_min_freq": str(ladder[0]),
            f"{folder}/cpuinfo_max_freq": str(ladder[-1]),
            f"{folder}/cpuinfo_cur_freq": str(self.cpu_khz(number)),
        }

    def _devfreq_files(self) -> dict[str, str]:
        folder, (low, high) = self.layout.devfreq, self.gpu_range()
        return {
            f"{folder}/available_frequencies": " ".join(map(str, self.state.gpu_hz)),
            f"{folder}/governor": "nvhost_podgov",
            f"{folder}/min_freq": str(low),
            f"{folder}/max_freq": str(high),
            f"{folder}/cur_freq": str(self.gpu_hz()),
        }

    def _gpu_files(self) -> dict[str, str]:
        folder, state = self.layout.gpu, self.state
        return {
            f"{folder}/of_node/name": f"{self.layout.gpu_kind}\0",
            f"{folder}/power/control": state.gpu_control,
            f"{folder}/railgate_enable": str(state.railgate),
            f"{folder}/load": "0",
            **{self.layout.mask_file(folder, m): str(mask) for m, mask in state.masks.items()},
        }

    def _memory_files(self) -> dict[str, str]:
        state, layout = self.state, self.layout
        files = {layout.emc_cap: str(state.emc_cap), layout.emc_hold: str(state.emc_hold)}
        low, high = str(state.mem_hz[0]), str(state.mem_hz[-1])
        if layout.has_bpmp:
            rates = " ".join(str(hz // 1000) for hz in state.mem_hz)
            emc = f"{BPMP}/clk/emc"
            files |= {f"{emc}/min_rate": low, f"{emc}/max_rate": high}
            files |= {f"{emc}/state": str(state.emc_enable)}
            files |= {f"{BPMP}/emc/possible_rates": f"{rates} (kHz)"}
        else:
            files |= {f"{BWMGR}/emc_min_rate": low, f"{BWMGR}/emc_max_rate": high}
            files |= {f"{CLK}/override.emc/clk_update_rate": str(state.emc_request)}
        return files | {layout.emc_rate: str(self.mem_hz())}

    def _throttling_files(self) -> dict[str, str]:
        counter = "oc3_irq_cnt" if self.state.chip == "tegra194" else "oc3_event_cnt"
        thermal = "sys/class/thermal"
        milli = 99_500 if self.state.cooling else round(1000 * self.state.celsius)
        zones = {
            f"{thermal}/thermal_zone{i}/temp": str(100_000 if name.startswith("PMIC") else milli)
            for i, (name, *_) in enumerate(self.state.zones)
        }
        return {
            f"{SOCTHERM}/name": "soctherm_oc",
            f"{SOCTHERM}/{counter}": str(self.state.events),
            f"{thermal}/cooling_device0/type": "pwm-fan",
            f"{thermal}/cooling_device0/cur_state": "1",
            f"{thermal}/cooling_device1/type": "cpu-throttle-alert",
            f"{thermal}/cooling_device1/cur_state": str(self.state.cooling),
            **self._hot_surface(milli),
            **zones,
        }

    def _hot_surface(self, milli: int) -> dict[str, str]:
        """An Orin's warning that it is hot to touch, which slows nothing down."""
        if not self.layout.warns_of_hot_surface:
            return {}
        folder = "sys/class/thermal/cooling_device2"
        is_hot = str(int(milli >= HOT_SURFACE_MILLI))
        return {f"{folder}/type": "hot-surface-alert", f"{folder}/cur_state": is_hot}

    def rail_files(self) -> dict[str, str]:
        """The power monitors: the module's power in its rails."""
        files = {}
        for label, address, channel, share in self.state.rails:
            folder, watts = self.layout.monitor(address), share * self.state.power_w
            millivolt = _MILLIVOLT.get(label, 5000)
            if self.state.jetpack == "4":
                files[f"{folder}/rail_name_{channel - 1}"] = label
                files[f"{folder}/in_power{channel - 1}_input"] = str(round(1e3 * watts))
                files[f"{folder}/in_voltage{channel - 1}_input"] = str(millivolt)
                milliampere = round(1e6 * watts / millivolt)
                files[f"{folder}/in_current{channel - 1}_input"] = str(milliampere)
                continue
            files[f"{folder}/in{channel}_label"] = label
            files[f"{folder}/in{channel}_input"] = str(millivolt)
            files[f"{folder}/curr{channel}_input"] = str(round(1e6 * watts / millivolt))
            files[f"{folder}/curr{channel}_max"] = files[f"{folder}/curr{channel}_crit"] = "32760"
            files[f"{folder}/curr{channel}_max_alarm"] = "0"
            files[f"{folder}/curr{channel}_crit_alarm"] = "0"
        return files


def _number(path: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _refusal(errno.EINVAL, path) from None


def _refusal(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), f"/{path}")


def _nearest(ladder: list[int], value: int) -> int:
    if value in ladder:
        return value
    return min(ladder, key=lambda step: (abs(step - value), step))


def _clamped(asked: list[int], ladder: list[int]) -> tuple[int, int]:
    high = min(max(asked[1], ladder[0]), ladder[-1])
    return min(max(asked[0], ladder[0]), high), high


def _throttled(ladder: list[int], value: int, ceiling: int | None) -> int:
    if ceiling is None or value <= ceiling:
        return value
    return max((step for step in ladder if step <= ceiling), default=ladder[0])
