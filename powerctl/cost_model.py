"""The cost model: time and power of a minibatch from board constants and a workload's signature.

Time is a chain of bottlenecks: the host prepares minibatches on its cores while the GPU computes
the one before; kernel launches come on top of the GPU's work. Power adds up over domains, with the
utilisations that the time model gives. The twin runs on it, predictors start from it.

Symbols, with the fields of `Hardware` and `Signature` by their names:

    c, f, g, m   cores online, CPU kHz, GPU Hz and memory Hz of a mode
    b            samples of a minibatch
    F            core cycles a second: 1000 f cpu_speed

    host time    t_h = (host cycles) (1 / F + host_stall_clocks / m) / used cores
    compute      t_c = FLOP / (g flop_per_gpu_cycle)
    memory       t_m = bytes / peak bandwidth * (max_mem_hz / m)^traffic_exponent
    launches     t_l = launch_cycles (1 / F + launch_stall_clocks / m)
    minibatch    t = |t_h, |(|t_c, t_m|), t_l||, where |a, b| = (a^p + b^p)^(1/p) with the norm p of
                 each pair: p = 1 adds them, large p takes the larger
    power        P = static + memory (m / max)^mem_exponent + GPU and CPU, each by its clock times
                 squared voltage and its utilisation, + joules a byte times bytes a second

Cores are busy while they prepare and launch, but not in the share of the fixed host cycles that
they wait (host_wait_share).

Cycles, FLOP and bytes are a fixed part and a part per sample, times b. The smooth minimum of two
numbers of cores is the norm of -p.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from powerctl.fields import Amount, Positive, Range
from powerctl.modes import FloatArray

Exponent = Annotated[float, Range(0, 10)]
Norm = Annotated[float, Range(0.1, 1000)]
Share = Annotated[float, Range(0, 1)]

REFERENCE_FLOP_PER_CYCLE = 4096.0  # of the AGX Orin, whose tables most signatures come from
# Shapes that are the same for all boards and workloads.
CORE_NORM = 4.0  # sharpness of the smooth minimum of cores at hand and cores that can be used
TAKEN_NORM = 8.0  # the same of cores that other things take and those that they can get
TAKEN_SHARE = 0.75  # of the cores online: few are shared fairly
VOLTAGE_WIDTH = 0.08  # of the softplus by which voltage rises above its knee


@dataclass(frozen=True)
class Hardware:
    """A board's constants, the same for all workloads.

    Attributes
    ----------
    cpu_speed : float
        Work of a core per cycle; a Cortex-A78AE is 1.
    flop_per_gpu_cycle : float
        Peak FP32 FLOP per GPU cycle: 2 per CUDA core.
    bytes_per_mem_cycle : float
        Peak DRAM bytes per memory cycle.
    max_cpu_hz, max_gpu_hz, max_mem_hz : float
        Highest clocks; powers below are at these.
    static_w : float
        Power that no clock changes.
    mem_w, mem_exponent : float
        Power of memory and interconnect, and how it grows with the memory clock.
    byte_j : float
        Energy of a byte of DRAM traffic.
    gpu_idle_w, gpu_busy_w : float
        Dynamic power of the GPU when idle, and what full utilisation adds.
    core_online_w, core_busy_w, cluster_w : float
        Dynamic power of a core online, what a busy one adds, and of what the cores share.
    gpu_voltage_rise, gpu_voltage_knee : float
        Rise of the GPU's voltage from its floor to the highest clock, as a share of the floor, and
        the share of the highest clock from which on it rises.
    cpu_voltage_rise, cpu_voltage_knee : float
        The same of the CPU.
    background : float
        What other things than a workload take up of the cores, relative to an AGX Orin.
    """

    cpu_speed: Positive
    flop_per_gpu_cycle: Positive
    bytes_per_mem_cycle: Positive
    max_cpu_hz: Positive
    max_gpu_hz: Positive
    max_mem_hz: Positive
    static_w: Positive
    mem_w: Amount
    mem_exponent: Exponent
    byte_j: Amount
    gpu_idle_w: Amount
    gpu_busy_w: Amount
    core_online_w: Amount
    core_busy_w: Amount
    cluster_w: Amount
    gpu_voltage_rise: Amount
    gpu_voltage_knee: Amount
    cpu_voltage_rise: Amount
    cpu_voltage_knee: Amount
    background: Amount = 1.0


@dataclass(frozen=True)
class Signature:
    """What a minibatch of a workload needs, independent of the board.

    FLOP and bytes are effective ones: what the minibatch takes, at the board's peak, so that they
    include how far from the peak its kernels stay.

    Attributes
    ----------
    host_cycles, host_cycles_per_sample : float
        Core cycles (of a Cortex-A78AE) to prepare a minibatch: fixed, and per sample.
    host_stall_clocks : float
        Memory cycles that the host waits for, per host cycle: latency, so the same on boards with
        wider and narrower memory.
    serial_cores : float
        Cores that other things than preparing minibatches take up at any clock.
    background_hz : float
        Core cycles a second that other things take up on an AGX Orin: more cores the slower they
        are.
    loader_cores : float
        Cores that preparing minibatches can use at most.
    flop, flop_per_sample : float
        Effective FLOP of a minibatch: fixed, and per sample.
    traffic_bytes, traffic_bytes_per_sample : float
        Effective DRAM bytes at the highest memory clock: fixed, and per sample.
    traffic_exponent : float
        How time in memory grows as the memory clock falls; 1 is inversely proportional.
    launch_cycles : float
        Core cycles to launch the minibatch's kernels.
    launch_stall_clocks : float
        Memory cycles that launching waits for, per launch cycle.
    gpu_norm, launch_norm, overlap_norm : float
        Norms that combine compute with memory, their sum with launches, and host with all of the
        GPU: 1 adds, large takes the maximum.
    host_wait_share : float
        Share of the fixed host cycles in which processes wait for each other: they take time, and
        no core is busy. Tables of several batch sizes tell it.
    unscaled_share : float
        Share of the compute time on an AGX Orin that more or fewer CUDA cores leave as it is:
        kernels too small to fill them. One board's tables cannot tell it.
    gpu_activity, host_activity : float
        Dynamic power of the busy GPU and of busy cores, relative to the board's constants.
    traffic_activity : float
        DRAM bytes that cost energy, relative to the effective ones.
    """

    host_cycles: Amount
    host_cycles_per_sample: Amount
    host_stall_clocks: Amount
    serial_cores: Amount
    loader_cores: Positive
    flop: Amount
    flop_per_sample: Amount
    traffic_bytes: Amount
    traffic_bytes_per_sample: Amount
    traffic_exponent: Exponent
    launch_cycles: Amount
    launch_stall_clocks: Amount
    gpu_norm: Norm
    overlap_norm: Norm
    gpu_activity: Amount
    host_activity: Amount
    traffic_activity: Amount
    launch_norm: Norm = 1.0
    host_wait_share: Share = 0.0
    unscaled_share: Share = 0.0
    background_hz: Amount = 0.0


class Cost(NamedTuple):
    """Cost of a minibatch per mode: arrays of one shape."""

    time_s: FloatArray
    power_w: FloatArray


class Stages(NamedTuple):
    """What a minibatch's time is made of, per mode: arrays of one shape.

    Cores in `spare_cores` (left by other things) and `used_cores` (of those, by the loaders);
    seconds in all others. `host_core_s` is the work of one core, `host_busy_s` what of it is not
    waiting, `device_s` the GPU's compute, memory and launches together.
    """

    spare_cores: FloatArray
    used_cores: FloatArray
    host_core_s: FloatArray
    host_busy_s: FloatArray
    host_s: FloatArray
    compute_s: FloatArray
    memory_s: FloatArray
    gpu_s: FloatArray
    launch_s: FloatArray
    device_s: FloatArray
    time_s: FloatArray
    traffic_bytes: FloatArray


def minibatch_stages(
    hardware: Hardware,
    signature: Signature,
    cores: ArrayLike,
    cpu_khz: ArrayLike,
    gpu_hz: ArrayLike,
    mem_hz: ArrayLike,
    batch_size: ArrayLike,
) -> Stages:
    """The stages of one minibatch in each mode; arguments as of `minibatch_cost`."""
    c, f, g, m, b = _as_floats(cores, cpu_khz, gpu_hz, mem_hz, batch_size)
    cycles_per_s = 1e3 * f * hardware.cpu_speed
    host_cycles = signature.host_cycles + signature.host_cycles_per_sample * b
    busy_cycles = host_cycles - signature.host_wait_share * signature.host_cycles
    flop = signature.flop + signature.flop_per_sample * b
    traffic = signature.traffic_bytes + signature.traffic_bytes_per_sample * b

    background = hardware.background * signature.background_hz / cycles_per_s
    wanted = signature.serial_cores + background
    spare = c - smooth_minimum(wanted, TAKEN_SHARE * c, TAKEN_NORM)
    used = smooth_minimum(spare, np.asarray(signature.loader_cores), CORE_NORM)
    cycle_s = 1 / cycles_per_s + signature.host_stall_clocks / m
    host_core_s = host_cycles * cycle_s
    host_s = host_core_s / used
    slowing = (hardware.max_mem_hz / m) ** signature.traffic_exponent
    memory_s = traffic / (hardware.max_mem_hz * hardware.bytes_per_mem_cycle) * slowing
    compute_s = flop * _core_share(hardware, signature) / (g * hardware.flop_per_gpu_cycle)
    gpu_s = norm(compute_s, memory_s, signature.gpu_norm)
    launch_s = signature.launch_cycles * (1 / cycles_per_s + signature.launch_stall_clocks / m)
    device_s = norm(gpu_s, launch_s, signature.launch_norm)
    time_s = norm(host_s, device_s, signature.overlap_norm)
    return Stages(
        spare_cores=spare,
        used_cores=used,
        host_core_s=host_core_s,
        host_busy_s=busy_cycles * cycle_s,
        host_s=host_s,
        compute_s=compute_s,
        memory_s=memory_s,
        gpu_s=gpu_s,
        launch_s=launch_s,
        device_s=device_s,
        time_s=time_s,
        traffic_bytes=traffic,
    )


def minibatch_cost(
    hardware: Hardware,
    signature: Signature,
    cores: ArrayLike,
    cpu_khz: ArrayLike,
    gpu_hz: ArrayLike,
    mem_hz: ArrayLike,
    batch_size: ArrayLike,
) -> Cost:
    """Time and power of one minibatch in each mode.

    Parameters
    ----------
    hardware, signature
        The board and the workload.
    cores, cpu_khz, gpu_hz, mem_hz, batch_size : array_like
        Modes and samples of a minibatch; they broadcast against each other.

    Returns
    -------
    Cost
        Seconds and watts.
    """
    stages = minibatch_stages(hardware, signature, cores, cpu_khz, gpu_hz, mem_hz, batch_size)
    active_w = sum(active_power_w(hardware, signature, stages, cpu_khz, gpu_hz))
    idle_w = idle_power_w(hardware, cores, cpu_khz, gpu_hz, mem_hz)
    return Cost(stages.time_s, idle_w + active_w)


def active_power_w(
    hardware: Hardware,
    signature: Signature,
    stages: Stages,
    cpu_khz: ArrayLike,
    gpu_hz: ArrayLike,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Watts that a workload adds to an idle module: of the GPU, of busy cores, of DRAM traffic."""
    f, g = _as_floats(cpu_khz, gpu_hz)
    gpu_utilisation = stages.gpu_s / stages.time_s
    busy_cores = (stages.host_busy_s + stages.launch_s) / stages.time_s
    return (
        hardware.gpu_busy_w * signature.gpu_activity * gpu_utilisation * gpu_scale(hardware, g),
        hardware.core_busy_w * signature.host_activity * busy_cores * cpu_scale(hardware, f),
        hardware.byte_j * signature.traffic_activity * stages.traffic_bytes / stages.time_s,
    )


def idle_power_w(
    hardware: Hardware,
    cores: ArrayLike,
    cpu_khz: ArrayLike,
    gpu_hz: ArrayLike,
    mem_hz: ArrayLike,
) -> Any:
    """Module power of each mode with nothing to do; watts, of the arguments' shape."""
    c, f, g, m = _as_floats(cores, cpu_khz, gpu_hz, mem_hz)
    return (
        hardware.static_w
        + hardware.mem_w * (m / hardware.max_mem_hz) ** hardware.mem_exponent
        + hardware.gpu_idle_w * gpu_scale(hardware, g)
        + (hardware.core_online_w * c + hardware.cluster_w) * cpu_scale(hardware, f)
    )


def _core_share(hardware: Hardware, signature: Signature) -> float:
    """How much of its compute a workload really needs on a board with fewer CUDA cores."""
    relative = hardware.flop_per_gpu_cycle / REFERENCE_FLOP_PER_CYCLE
    return 1 - signature.unscaled_share + signature.unscaled_share * relative


def _as_floats(*values: ArrayLike) -> list[FloatArray]:
    return [np.asarray(value, dtype=np.float64) for value in values]


def norm(a: FloatArray, b: FloatArray, p: float) -> FloatArray:
    """(a^p + b^p)^(1/p), scaled so that no power overflows."""
    top = np.maximum(a, b)
    return np.asarray(top * (1 + (np.minimum(a, b) / top) ** p) ** (1 / p))


def smooth_minimum(a: FloatArray, b: FloatArray, p: float) -> FloatArray:
    """(a^-p + b^-p)^(-1/p), scaled likewise."""
    low = np.minimum(a, b)
    return np.asarray(low * (1 + (low / np.maximum(a, b)) ** p) ** (-1 / p))


def gpu_scale(hardware: Hardware, gpu_hz: FloatArray) -> FloatArray:
    """The GPU's clock times squared voltage, relative to the highest clock."""
    share = gpu_hz / hardware.max_gpu_hz
    return _dynamic_scale(share, hardware.gpu_voltage_rise, hardware.gpu_voltage_knee)


def cpu_scale(hardware: Hardware, cpu_khz: FloatArray) -> FloatArray:
    """The CPU's clock times squared voltage, relative to the highest clock."""
    share = 1e3 * cpu_khz / hardware.max_cpu_hz
    return _dynamic_scale(share, hardware.cpu_voltage_rise, hardware.cpu_voltage_knee)


def voltage_rise(share: FloatArray, knee: float) -> FloatArray:
    """How far voltage has risen from its floor (0) to the highest clock (1): a softplus."""
    return np.asarray(_softplus(share - knee) / _softplus(np.asarray(1.0 - knee)))


def _softplus(x: FloatArray) -> FloatArray:
    return np.asarray(VOLTAGE_WIDTH * np.logaddexp(0.0, x / VOLTAGE_WIDTH))


def _dynamic_scale(share: FloatArray, rise: float, knee: float) -> FloatArray:
    volts = (1 + rise * voltage_rise(share, knee)) / (1 + rise)
    return np.asarray(share * volts**2)
