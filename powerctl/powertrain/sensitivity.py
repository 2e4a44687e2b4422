"""How time and power of the cost model answer to its parameters: derivatives of logarithms.

Written out by hand, because predicting 18,096 modes with their uncertainty needs them for thirty
parameters at once; finite differences would take ten times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from powerctl.cost_model import (
    CORE_NORM,
    TAKEN_NORM,
    TAKEN_SHARE,
    VOLTAGE_WIDTH,
    Hardware,
    Signature,
    active_power_w,
    cpu_scale,
    gpu_scale,
    idle_power_w,
    minibatch_stages,
    smooth_minimum,
    voltage_rise,
)
from powerctl.modes import FloatArray, ModeArrays


class Sensitivity(NamedTuple):
    """Log time and log power per mode, and how they answer.

    Attributes
    ----------
    log_time, log_power : FloatArray, shape (n_modes,)
        Of the cost model: seconds and watts.
    time_slopes, power_slopes : FloatArray, shape (n_parameters, n_modes)
        Derivatives by the logarithm of each parameter.
    to_flop, to_host : FloatArray, shape (2, n_modes)
        Derivatives of log time and log power by the logarithm of the FLOP, of the host's cycles.
    host_share : FloatArray, shape (n_modes,)
        Derivative of log time by the logarithm of the host's time: 1 where the host binds.
    active_share : FloatArray, shape (n_modes,)
        Share of the power that the workload adds to the idle module.
    """

    log_time: FloatArray
    log_power: FloatArray
    time_slopes: FloatArray
    power_slopes: FloatArray
    to_flop: FloatArray
    to_host: FloatArray
    host_share: FloatArray
    active_share: FloatArray


def sensitivity(
    hardware: Hardware,
    signature: Signature,
    modes: ModeArrays,
    batch_size: ArrayLike,
    names: Sequence[str],
) -> Sensitivity:
    """Derivatives of the cost model in some modes by some parameters.

    Parameters
    ----------
    hardware, signature
        Where to take them.
    modes : ModeArrays
        Arrays of shape (n_modes,).
    batch_size : array_like
        Broadcasts against the modes.
    names : sequence of str
        Fields of `Signature` (without `unscaled_share`) and power constants of `Hardware`
        (without those that multiply an activity, which answer like it).
    """
    response = _Response(hardware, signature, modes, np.asarray(batch_size, dtype=np.float64))
    slopes = np.empty((2, len(names), len(response.power_w)))
    for row, name in enumerate(names):
        slopes[:, row] = getattr(response, name)()
    return Sensitivity(
        log_time=np.log(response.stages.time_s),
        log_power=np.log(response.power_w),
        time_slopes=slopes[0],
        power_slopes=slopes[1],
        to_flop=np.array(response.of(compute=1.0)),
        to_host=np.array(response.of(host_core=1.0)),
        host_share=response.host_share,
        active_share=sum(response.active_w) / response.power_w,
    )


Pair = tuple[FloatArray, FloatArray]
Change = FloatArray | float


class _Response:
    """The chain rule of the cost model; a method per parameter gives (log time, log power)."""

    def __init__(
        self, hardware: Hardware, signature: Signature, modes: ModeArrays, batch_size: FloatArray
    ) -> None:
        self.hardware, self.signature = hardware, signature
        self.c, self.f, self.g, self.m = (np.asarray(axis, dtype=np.float64) for axis in modes)
        self.b = batch_size
        self.cycles_per_s = 1e3 * self.f * hardware.cpu_speed
        self.stages = minibatch_stages(hardware, signature, *modes, batch_size)
        self.active_w = active_power_w(hardware, signature, self.stages, self.f, self.g)
        self.power_w = idle_power_w(hardware, *modes) + sum(self.active_w)
        s = self.stages
        self.host_share = (s.host_s / s.time_s) ** signature.overlap_norm
        self.gpu_share = (s.gpu_s / s.device_s) ** signature.launch_norm
        self.compute_share = (s.compute_s / s.gpu_s) ** signature.gpu_norm
        self.prepare_share = s.host_busy_s / (s.host_busy_s + s.launch_s)
        self.active_parts = tuple(part / self.power_w for part in self.active_w)

    def of(
        self,
        host_core: Change = 0.0,
        host_busy: Change | None = None,
        used: Change = 0.0,
        compute: Change = 0.0,
        memory: Change = 0.0,
        gpu: Change = 0.0,
        launch: Change = 0.0,
        device: Change = 0.0,
        time: Change = 0.0,
        traffic: Change = 0.0,
    ) -> Pair:
        """What small relative changes of the stages (themselves, their inputs unchanged) do.

        Cores are busy for as much longer as their work takes, unless `host_busy` says otherwise.
        """
        host_busy = host_core if host_busy is None else host_busy
        gpu = gpu + self.compute_share * compute + (1 - self.compute_share) * memory
        device = device + self.gpu_share * gpu + (1 - self.gpu_share) * launch
        time = time + self.host_share * (host_core - used) + (1 - self.host_share) * device
        busy = self.prepare_share * host_busy + (1 - self.prepare_share) * launch
        of_gpu, of_cores, of_traffic = self.active_parts
        power = of_gpu * (gpu - time) + of_cores * (busy - time) + of_traffic * (traffic - time)
        return np.asarray(time), np.asarray(power)

    def _power(self, watts: FloatArray | float) -> Pair:
        return np.zeros_like(self.power_w), watts / self.power_w

    # What the host prepares.
    def host_cycles(self) -> Pair:
        fixed = self._fixed("host_cycles")
        return self.of(fixed, 1 - self._per_sample_of_busy(fixed))

    def host_cycles_per_sample(self) -> Pair:
        fixed = self._fixed("host_cycles")
        return self.of(1 - fixed, self._per_sample_of_busy(fixed))

    def host_stall_clocks(self) -> Pair:
        return self.of(host_core=self._stall(self.signature.host_stall_clocks))

    def serial_cores(self) -> Pair:
        return self._taken(np.asarray(self.signature.serial_cores))

    def background_hz(self) -> Pair:
        return self._taken(self._background())

    def loader_cores(self) -> Pair:
        return self.of(used=(self.stages.used_cores / self.signature.loader_cores) ** CORE_NORM)

    # What the GPU computes, moves and is told.
    def flop(self) -> Pair:
        return self.of(compute=self._fixed("flop"))

    def flop_per_sample(self) -> Pair:
        return self.of(compute=1 - self._fixed("flop"))

    def traffic_bytes(self) -> Pair:
        share = self._fixed("traffic_bytes")
        return self.of(memory=share, traffic=share)

    def traffic_bytes_per_sample(self) -> Pair:
        share = 1 - self._fixed("traffic_bytes")
        return self.of(memory=share, traffic=share)

    def traffic_exponent(self) -> Pair:
        slower = np.log(self.hardware.max_mem_hz / self.m)
        return self.of(memory=self.signature.traffic_exponent * slower)

    def launch_cycles(self) -> Pair:
        return self.of(launch=1.0)

    def launch_stall_clocks(self) -> Pair:
        return self.of(launch=self._stall(self.signature.launch_stall_clocks))

    # How the stages overlap.
    def gpu_norm(self) -> Pair:
        return self.of(gpu=_norm_slope(self.compute_share, self.signature.gpu_norm))

    def launch_norm(self) -> Pair:
        return self.of(device=_norm_slope(self.gpu_share, self.signature.launch_norm))

    def overlap_norm(self) -> Pair:
        return self.of(time=_norm_slope(self.host_share, self.signature.overlap_norm))

    # Power of a busy module, and of an idle one.
    def gpu_activity(self) -> Pair:
        return self._power(self.active_w[0])

    def host_activity(self) -> Pair:
        return self._power(self.active_w[1])

    def traffic_activity(self) -> Pair:
        return self._power(self.active_w[2])

    def static_w(self) -> Pair:
        return self._power(self.hardware.static_w)

    def mem_w(self) -> Pair:
        share = self.m / self.hardware.max_mem_hz
        return self._power(self.hardware.mem_w * share**self.hardware.mem_exponent)

    def mem_exponent(self) -> Pair:
        slower = np.log(self.m / self.hardware.max_mem_hz)
        time, power = self.mem_w()
        return time, power * self.hardware.mem_exponent * slower

    def gpu_idle_w(self) -> Pair:
        return self._power(self.hardware.gpu_idle_w * self._gpu_scale)

    def core_online_w(self) -> Pair:
        online_w = self.hardware.core_online_w * self.c
        return self._power(online_w * self._cpu_scale)

    def cluster_w(self) -> Pair:
        return self._power(self.hardware.cluster_w * self._cpu_scale)

    def gpu_voltage_rise(self) -> Pair:
        return self._power(self._gpu_w() * self._gpu_volts[0])

    def gpu_voltage_knee(self) -> Pair:
        return self._power(self._gpu_w() * self._gpu_volts[1])

    def cpu_voltage_rise(self) -> Pair:
        return self._power(self._cpu_w() * self._cpu_volts[0])

    def cpu_voltage_knee(self) -> Pair:
        return self._power(self._cpu_w() * self._cpu_volts[1])

    @cached_property
    def _gpu_scale(self) -> FloatArray:
        return gpu_scale(self.hardware, self.g)

    @cached_property
    def _cpu_scale(self) -> FloatArray:
        return cpu_scale(self.hardware, self.f)

    def _fixed(self, name: str) -> FloatArray:
        """Share of the fixed part in something that has one part per sample too."""
        fixed = getattr(self.signature, name)
        per_sample = getattr(self.signature, f"{name}_per_sample")
        return np.asarray(fixed / (fixed + per_sample * self.b))

    def _per_sample_of_busy(self, fixed: FloatArray) -> FloatArray:
        """Share of preparing samples in what the host is busy with; the fixed part may wait."""
        return (1 - fixed) / (1 - self.signature.host_wait_share * fixed)

    def _stall(self, clocks: float) -> FloatArray:
        return np.asarray(clocks / self.m / (1 / self.cycles_per_s + clocks / self.m))

    def _background(self) -> FloatArray:
        hertz = self.hardware.background * self.signature.background_hz
        return np.asarray(hertz / self.cycles_per_s)

    def _taken(self, cores: FloatArray) -> Pair:
        """More of the cores that other things want."""
        signature, spare = self.signature, self.stages.spare_cores
        wanted = signature.serial_cores + self._background()
        taken = smooth_minimum(wanted, TAKEN_SHARE * self.c, TAKEN_NORM)
        more = (taken / wanted) ** TAKEN_NORM * taken / wanted * cores
        return self.of(used=-((self.stages.used_cores / spare) ** CORE_NORM) * more / spare)

    def _gpu_w(self) -> FloatArray:
        idle_w = self.hardware.gpu_idle_w * self._gpu_scale
        return np.asarray(idle_w + self.active_w[0])

    def _cpu_w(self) -> FloatArray:
        idle_w = self.hardware.core_online_w * self.c + self.hardware.cluster_w
        return np.asarray(idle_w * self._cpu_scale + self.active_w[1])

    @cached_property
    def _gpu_volts(self) -> Pair:
        hardware = self.hardware
        share = self.g / hardware.max_gpu_hz
        return _volts_slopes(share, hardware.gpu_voltage_rise, hardware.gpu_voltage_knee)

    @cached_property
    def _cpu_volts(self) -> Pair:
        hardware = self.hardware
        share = 1e3 * self.f / hardware.max_cpu_hz
        return _volts_slopes(share, hardware.cpu_voltage_rise, hardware.cpu_voltage_knee)


def _norm_slope(share: FloatArray, p: float) -> FloatArray:
    """Derivative of log (a^p + b^p)^(1/p) by log p, where `share` is a^p / (a^p + b^p)."""
    other = 1 - share
    tiny = np.finfo(np.float64).tiny
    entropy = share * np.log(np.maximum(share, tiny)) + other * np.log(np.maximum(other, tiny))
    return np.asarray(entropy / p)


def _volts_slopes(share: FloatArray, rise: float, knee: float) -> Pair:
    """Derivatives of log squared voltage, relative to the top, by log rise and log knee."""
    risen = voltage_rise(share, knee)
    by_rise = rise * (risen / (1 + rise * risen) - 1 / (1 + rise))
    top = VOLTAGE_WIDTH * np.logaddexp(0.0, (1 - knee) / VOLTAGE_WIDTH)
    falls = risen * _sigmoid(np.asarray(1 - knee)) - _sigmoid(share - knee)
    return 2 * by_rise, 2 * knee * rise * falls / top / (1 + rise * risen)


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-x / VOLTAGE_WIDTH)))
