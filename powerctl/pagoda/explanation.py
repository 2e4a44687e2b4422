"""What bounds a minibatch in a power mode, layer by layer, and where its joules go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from powerctl.boards import Board
from powerctl.cost_model import (
    Hardware,
    Signature,
    active_power_w,
    minibatch_cost,
    minibatch_stages,
    norm,
)
from powerctl.modes import AXES, FloatArray, ModeArrays, PowerMode
from powerctl.pagoda.counts import Counts, LayerCount
from powerctl.pagoda.estimate import BY_CUDNN, OTHERS, Efficiency, number_format
from powerctl.pagoda.rooflines import Rooflines, board_rooflines


@dataclass(frozen=True)
class LayerShare:
    """What a layer takes of the time and energy of a minibatch.

    Attributes
    ----------
    count : LayerCount
        FLOP, bytes and kernels.
    number_format : str
        What its arithmetic runs in: ``"fp32"`` on CUDA cores, ``"tf32"`` on tensor cores.
    compute_s, memory_s, launch_s : float
        Time of its arithmetic or of its traffic through the GPU's caches, of its traffic to DRAM,
        and of launching its kernels; each by itself.
    bound : str
        The longest of them: ``"compute"`` or, where the caches take longer than the arithmetic,
        ``"caches"``; ``"memory"`` or ``"launch"``.
    time_share, energy_share : float
        Of the GPU's part of the minibatch, and of all its energy.
    """

    count: LayerCount
    number_format: str
    compute_s: float
    memory_s: float
    launch_s: float
    bound: str
    time_share: float
    energy_share: float


@dataclass(frozen=True)
class ClockStep:
    """What another value of one axis does, all others as they are: relative changes, 0.1 is +10 %.

    `axis` and `value` are the changed one, in its unit.
    """

    axis: str
    value: int
    time: float
    power: float
    energy: float


@dataclass(frozen=True)
class Explanation:
    """A minibatch in a mode.

    Attributes
    ----------
    mode : PowerMode
        The mode.
    time_s, power_w : float
        Estimates.
    stages_s : dict of str to float
        Time of each stage by itself: host, compute (with the GPU's caches), memory, launch. They
        overlap.
    energy_j : dict of str to float
        Of the idle module, the GPU, the CPU's cores and moving data; they add up. They are told
        apart by what the power of the module follows: the GPU's is what its clock and voltage
        bring while it is busy, moving data is what each byte brings, on its way from DRAM through
        controller and caches to the arithmetic on it.
    layers : tuple of LayerShare
        The longest first.
    steps : tuple of ClockStep
        The next values below and above on each axis.
    rooflines : dict of str to Rooflines
        Of the mode, with arrays of one element, by the number formats of the layers.
    flop, dram_bytes : int
        Of the minibatch.
    """

    mode: PowerMode
    time_s: float
    power_w: float
    stages_s: dict[str, float]
    energy_j: dict[str, float]
    layers: tuple[LayerShare, ...]
    steps: tuple[ClockStep, ...]
    rooflines: dict[str, Rooflines]
    flop: int
    dram_bytes: int

    @property
    def bound(self) -> str:
        """The stage that takes longest by itself."""
        return max(self.stages_s, key=lambda stage: self.stages_s[stage])

    @property
    def roofline_s(self) -> float:
        """Least time of the minibatch: each layer's FLOP at its format's peak, or all the bytes."""
        compute_s = sum(
            layer.count.flop / float(self.rooflines[layer.number_format].peak_flops[0])
            for layer in self.layers
        )
        bandwidth = float(self.rooflines[OTHERS].peak_bandwidth[0])
        return max(compute_s, self.dram_bytes / bandwidth)

    def share_bound_by(self, stage: str) -> float:
        """Of the GPU's part of the time, what layers take that are bound by a stage."""
        return sum(layer.time_share for layer in self.layers if layer.bound == stage)


def explain_minibatch(
    board: Board, signature: Signature, efficiency: Efficiency, counts: Counts, mode: PowerMode
) -> Explanation:
    """Explain what bounds a minibatch in a mode, and where its joules go.

    Parameters
    ----------
    board : Board
        Where it runs.
    signature : Signature
        Of the workload.
    efficiency : Efficiency
        What its layers reach.
    counts : Counts
        Of a minibatch of the size in question.
    mode : PowerMode
        Of the board's space.
    """
    board.space.check(mode)
    size = counts.batch_size
    cost = minibatch_cost(board.hardware, signature, *mode.values, size)
    stages = minibatch_stages(board.hardware, signature, *mode.values, size)
    gpu_w, cores_w, traffic_w = (
        float(watts)
        for watts in active_power_w(board.hardware, signature, stages, mode.cpu_khz, mode.gpu_hz)
    )
    time_s, power_w = float(cost.time_s), float(cost.power_w)
    energy_j = {
        "idle module": (power_w - gpu_w - cores_w - traffic_w) * time_s,
        "GPU": gpu_w * time_s,
        "CPU cores": cores_w * time_s,
        "moving data": traffic_w * time_s,
    }
    stages_s = {
        "host": float(stages.host_s),
        "compute": float(stages.compute_s),
        "memory": float(stages.memory_s),
        "launch": float(stages.launch_s),
    }
    launching = stages_s["launch"] / (float(stages.host_core_s) + stages_s["launch"])
    return Explanation(
        mode=mode,
        time_s=time_s,
        power_w=power_w,
        stages_s=stages_s,
        energy_j=energy_j,
        layers=_layers(
            board.hardware, signature, efficiency.on(board), counts, mode, energy_j, launching
        ),
        steps=tuple(_steps(board, signature, size, mode)),
        rooflines={
            each: board_rooflines(board, ModeArrays.of([mode]), each) for each in (OTHERS, BY_CUDNN)
        },
        flop=counts.flop,
        dram_bytes=counts.dram_bytes,
    )


def _layers(
    hardware: Hardware,
    signature: Signature,
    efficiency: Efficiency,
    counts: Counts,
    mode: PowerMode,
    energy_j: dict[str, float],
    launching: float,
) -> tuple[LayerShare, ...]:
    """Shares of all layers; `launching` is the part of the cores' energy that launching takes."""
    layers = counts.layers
    clocks_s = 1 / (1e3 * mode.cpu_khz * hardware.cpu_speed)
    clocks_s += signature.launch_stall_clocks / mode.mem_hz
    launch_s = clocks_s * _of(efficiency.launch_cycles, layers)
    compute_s = _of(efficiency.effective_flop, layers)
    compute_s /= hardware.flop_per_gpu_cycle * mode.gpu_hz
    dram_bytes = _of(efficiency.traffic_bytes, layers)
    slowing = (hardware.max_mem_hz / mode.mem_hz) ** signature.traffic_exponent
    bandwidth = hardware.max_mem_hz * hardware.bytes_per_mem_cycle * efficiency.dram_efficiency
    memory_s = dram_bytes / bandwidth * slowing
    gpu_s = norm(compute_s, np.maximum(memory_s, 1e-30), signature.gpu_norm)
    time = _shares(norm(gpu_s, np.maximum(launch_s, 1e-30), signature.launch_norm))
    energy = (
        energy_j["idle module"] * time
        + energy_j["GPU"] * _shares(gpu_s)
        + energy_j["CPU cores"] * launching * _shares(launch_s)
        + energy_j["moving data"] * _shares(_of(efficiency.energy_bytes, layers))
    ) / sum(energy_j.values())
    longest = np.argmax([compute_s, memory_s, launch_s], axis=0)
    at_gpu_clock = [
        "caches" if efficiency.caches_flop(layer) > efficiency.arithmetic_flop(layer) else "compute"
        for layer in layers
    ]
    found = [
        LayerShare(
            count=layer,
            number_format=number_format(layer),
            compute_s=float(compute_s[i]),
            memory_s=float(memory_s[i]),
            launch_s=float(launch_s[i]),
            bound=(at_gpu_clock[i], "memory", "launch")[longest[i]],
            time_share=float(time[i]),
            energy_share=float(energy[i]),
        )
        for i, layer in enumerate(layers)
    ]
    return tuple(sorted(found, key=lambda share: -share.time_share))


def _of(what: object, layers: Sequence[LayerCount]) -> FloatArray:
    assert callable(what)
    return np.array([what(layer) for layer in layers], dtype=np.float64)


def _shares(values: FloatArray) -> FloatArray:
    total = values.sum()
    return values / total if total > 0 else values


def _steps(board: Board, signature: Signature, size: int, mode: PowerMode) -> list[ClockStep]:
    """The next value below and above on each axis, and what it changes."""
    changed: list[tuple[str, PowerMode]] = []
    for position, (name, axis) in enumerate(zip(AXES, board.space.axes, strict=True)):
        at = axis.index(mode.values[position])
        for value in axis[max(0, at - 1) : at] + axis[at + 1 : at + 2]:
            values = list(mode.values)
            values[position] = value
            changed.append((name, PowerMode(*values)))
    modes = ModeArrays.of([mode, *(other for _, other in changed)])
    cost = minibatch_cost(board.hardware, signature, *modes, size)
    time, power = cost.time_s / cost.time_s[0], cost.power_w / cost.power_w[0]
    return [
        ClockStep(
            axis=name,
            value=other.values[AXES.index(name)],
            time=float(time[i]) - 1,
            power=float(power[i]) - 1,
            energy=float(time[i] * power[i]) - 1,
        )
        for i, (name, other) in enumerate(changed, start=1)
    ]
