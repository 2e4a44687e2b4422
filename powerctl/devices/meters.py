"""Energy meters: joules that a Jetson module, an NVIDIA GPU or a CPU's package has taken.

A `Meter` counts up from when it was opened. Some hardware counts energy itself (NVML on data-centre
GPUs, RAPL); of power sensors (the INA3221 of a Jetson, NVML elsewhere) a thread integrates.
"""

from __future__ import annotations

import importlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from powerctl.errors import DeviceUnavailable
from powerctl.jetson.energy import EnergyIntegral, PowerSampler
from powerctl.jetson.rails import RailPower
from powerctl.jetson.sysfs import Sysfs

_ROOT = Path("/")
_SAMPLING_S = 0.01  # the INA3221 of a Jetson has a fresh value every 7 ms


class Meter(ABC):
    """Counts joules; `name` says of what and by what."""

    name: str

    @abstractmethod
    def energy_j(self) -> float:
        """Joules since the meter was opened; NaN where nobody knows."""

    def close(self) -> None:  # noqa: B027, most hold nothing
        """Stop metering; most meters hold nothing."""

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NoMeter(Meter):
    """Stands in where nothing measures energy."""

    name = "no energy meter"

    def energy_j(self) -> float:
        """NaN, as nothing is measured."""
        return math.nan


class PowerIntegral(Meter):
    """Integrates a power sensor's readings over time, by trapezoids; a thread takes them.

    Parameters
    ----------
    name : str
        What is measured.
    power_w : callable
        Reads the sensor, in watts; an `OSError` for one that is busy.
    """

    def __init__(self, name: str, power_w: Callable[[], float]) -> None:
        self.name = name
        self._integral = EnergyIntegral(power_w, time.monotonic)
        self._sampler = PowerSampler(self._integral, _SAMPLING_S)

    def energy_j(self) -> float:
        """Joules that were integrated up to now."""
        return self._integral.energy_j()

    def close(self) -> None:
        """End the thread that samples the sensor."""
        self._sampler.close()


class Rapl(Meter):
    """The CPU's packages and their DRAM, by the counters of Linux's powercap (RAPL)."""

    def __init__(self, root: Path = _ROOT) -> None:
        zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        # psys holds the packages, and a package its cores: they would count twice
        self._counters = [
            _Counter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
            for zone in zones
            if (zone / "name").read_text().strip().startswith(("package", "dram"))
        ]
        if not self._counters:
            raise DeviceUnavailable(f"no RAPL package in {root}/sys/class/powercap")
        self.name = "CPU packages and DRAM (RAPL)"

    def energy_j(self) -> float:
        """Joules since opening; must be called within a counter's range, a minute at least."""
        return sum(counter.total_uj() for counter in self._counters) / 1e6


class _Counter:
    """A counter of microjoules that starts again at zero after its range."""

    def __init__(self, path: Path, range_uj: int) -> None:
        self._path, self._range_uj = path, range_uj
        self._last, self._total = int(path.read_text()), 0

    def total_uj(self) -> int:
        now = int(self._path.read_text())
        self._total += now - self._last if now >= self._last else now - self._last + self._range_uj
        self._last = now
        return self._total


def jetson(root: Path = _ROOT) -> Meter:
    """The module's power of a Jetson: the rails that the catalogue says make it up."""
    power = RailPower(Sysfs(root))
    return PowerIntegral(f"module (INA3221: {' + '.join(power.labels)})", power.total_w)


class NvmlCounter(Meter):
    """An NVIDIA GPU's board, by its energy counter (Volta and later)."""

    def __init__(self, gpu_uuid: str | None = None) -> None:
        self._nvml, self._gpu = _nvml(gpu_uuid)
        self.name = "GPU board (NVML)"
        self._start_mj = self._read()

    def energy_j(self) -> float:
        """Joules that the GPU board has taken since opening."""
        return (self._read() - self._start_mj) / 1000

    def _read(self) -> int:
        try:
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu))
        except self._nvml.NVMLError as error:
            raise DeviceUnavailable(f"the GPU has no energy counter: {error}") from None


def nvml_power(gpu_uuid: str | None = None) -> Meter:
    """An NVIDIA GPU's board, by its power sensor."""
    nvml, gpu = _nvml(gpu_uuid)
    try:
        nvml.nvmlDeviceGetPowerUsage(gpu)
    except nvml.NVMLError as error:
        raise DeviceUnavailable(f"the GPU has no power sensor: {error}") from None

    def power_w() -> float:
        try:
            return float(nvml.nvmlDeviceGetPowerUsage(gpu)) / 1000
        except nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None

    return PowerIntegral("GPU board (NVML power)", power_w)


def nvml_load() -> Callable[[], float]:
    """What reads the load of the first NVIDIA GPU, 0 to 1; `DeviceUnavailable` without one."""
    nvml, gpu = _nvml(None)
    try:
        nvml.nvmlDeviceGetUtilizationRates(gpu)
    except nvml.NVMLError as error:  # an Orin's GPU is there, and says nothing
        raise DeviceUnavailable(f"the GPU tells no load: {error}") from None
    return lambda: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu) / 100


def _nvml(gpu_uuid: str | None) -> tuple[Any, Any]:
    """NVIDIA's library, and its handle of a GPU, by default the first."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        raise DeviceUnavailable("GPU energy needs NVML: pip install nvidia-ml-py") from None
    try:
        pynvml.nvmlInit()
        if gpu_uuid is None:
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{gpu_uuid.removeprefix('GPU-')}")
    except pynvml.NVMLError as error:
        raise DeviceUnavailable(f"NVML: {error}") from None


def open_meter(device: str, gpu_uuid: str | None = None, root: Path = _ROOT) -> Meter:
    """The first meter that works here for ``"cpu"`` or ``"cuda"``, or `NoMeter`.

    A Jetson's module rails come first: they hold its GPU, CPU and memory.

    Parameters
    ----------
    device : str
        What runs.
    gpu_uuid : str, optional
        Which GPU, as torch names it.
    root : Path
        Below it is ``sys``.
    """
    choices: list[Callable[[], Meter]] = [lambda: jetson(root)]
    if device == "cuda":
        choices += [lambda: NvmlCounter(gpu_uuid), lambda: nvml_power(gpu_uuid)]
    else:
        choices += [lambda: Rapl(root)]
    for choice in choices:
        try:
            return choice()
        except (DeviceUnavailable, OSError):  # counters that only root may read are an OSError
            continue
    return NoMeter()
