"""The signature of a workload that was never measured, from its FLOP, bytes and kernels.

A GPU reaches the peaks of its board in few kernels. Beside arithmetic and DRAM there is the traffic
through its caches, which runs at the GPU's clock and bounds most layers; and each kernel begins and
ends with a GPU that it does not fill. So a layer takes

    max(F / e, q B / s) + k n    of the board's peak FLOP, its effective FLOP,
    B / d                        bytes of DRAM, and the energy of
    a B / d + j F                such bytes.

======  =======================================================  ========  =========================
symbol  meaning                                                  unit      here
======  =======================================================  ========  =========================
F       counted operations of the layer                          FLOP      `LayerCount.flop`
B       counted bytes; of a recurrent layer, a share of them     B         `traffic_bytes`
e       of the FP32 peak, what the layer's kernels reach         1         `convolution_efficiency`,
                                                                           `product_efficiency`
q       operations at peak while the caches pass a byte          FLOP / B  `flop_per_onchip_byte`
s       of the caches' bandwidth, what the layer reaches: 1,     1         `thin_share`
        less if it is a convolution with F < 8 B
d       counted bytes over effective ones                        1         `dram_efficiency`
k       operations at peak while a kernel begins and ends        FLOP      `flop_per_kernel`
n       kernels of the layer; of a recurrent layer, a share      1         `LayerCount.kernels`
a       energy of an effective byte, relative to the board's     1         `traffic_activity`
j       bytes whose energy an operation takes                    B / FLOP  `flop_energy_bytes`
======  =======================================================  ========  =========================

Kernels are launched, and samples prepared, by the host. The constants are few, the same for all
networks of a kind, and stand in ``estimates.toml``, which says what they were fitted to.

References
----------
Pagoda (arXiv 2509.20189) for the rooflines; Ilic et al. (2014), the cache-aware roofline model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from powerctl.boards import Board
from powerctl.cost_model import REFERENCE_FLOP_PER_CYCLE, Signature
from powerctl.errors import InvalidInput
from powerctl.pagoda.counts import Counts, LayerCount
from powerctl.reading import read_toml

BY_CUDNN, OTHERS = "tf32", "fp32"
"""The number formats of PyTorch's defaults: cuDNN, of convolutions and recurrent layers, takes TF32
(`torch.backends.cudnn.conv` and `.rnn`); matrix products do not."""

_ESTIMATES = resources.files("powerctl.pagoda") / "estimates.toml"
_THIN_FLOP_PER_BYTE = 8.0  # depthwise convolutions are below, all others above
_SIZES = (8, 16)  # of the minibatches whose layers are counted; between, layers are lines
_TF32_OF_FP32 = 4.0  # peaks on an Orin, whose tables the efficiencies are of: 0.75 of each is 3.0
_RECURRENT = ("LSTM", "GRU", "RNN")

# A network of which only totals are known. Published counts are of inference with batch norm folded
# into the weights; what is executed moves more bytes, and training repeats it. As `count_model` has
# it for ResNet-50, MobileNetV3 and EfficientNet-B0: FLOP 3.0 to 3.1 times, bytes 2.5 to 3.1 times;
# 174 to 238 kernels, 404 to 663 in training.
_TOTAL = "Conv (all layers)"
_UNFOLDED_BYTES = 1.41
_TRAINING_FLOP, _TRAINING_BYTES = 3.0, 2.76
_KERNELS = {"infer": 170, "train": 425}
_MIXED_SHARE = 0.7  # of the cache bandwidth, where depthwise convolutions are among the layers


@dataclass(frozen=True)
class Efficiency:
    """What the kernels and the host of a kind of workload reach and need.

    Attributes
    ----------
    convolution_efficiency, product_efficiency : float
        FLOP/s of convolutions and recurrent layers, and of matrix products, relative to the
        board's FP32 peak; above 1 on tensor cores.
    flop_per_onchip_byte : float
        FLOP at peak in the time in which the GPU's caches pass a byte.
    thin_share : float
        Of the caches' bandwidth, what convolutions of low intensity (depthwise ones) reach.
    dram_efficiency : float
        Counted bytes over effective ones.
    launch_cycles_per_kernel : float
        Core cycles.
    recurrent_launch_share, recurrent_bytes_share : float
        Of launch cycles and bytes, what a recurrent layer takes: its library launches all steps at
        once, and keeps the state on the chip.
    flop_per_kernel : float
        FLOP at peak in the time in which a kernel begins and ends: small minibatches do not fill
        the GPU, and do not shorten this.
    flop_energy_bytes : float
        DRAM bytes whose energy a FLOP takes.
    fixed_host_samples : float
        Samples whose preparing takes as long as what a minibatch of any size waits for.
    host_cycles : mapping of str to float
        Core cycles to prepare an ``image``, or a ``token`` of a text.
    shape : mapping of str to float
        All else of a `Signature`.
    """

    convolution_efficiency: float
    product_efficiency: float
    flop_per_onchip_byte: float
    thin_share: float
    dram_efficiency: float
    launch_cycles_per_kernel: float
    recurrent_launch_share: float
    recurrent_bytes_share: float
    flop_per_kernel: float
    flop_energy_bytes: float
    fixed_host_samples: float
    host_cycles: Mapping[str, float]
    shape: Mapping[str, float]

    def on(self, board: Board) -> Efficiency:
        """The same on a board: its tensor cores may give TF32 less than an Orin's, or be missing.

        Kernels begin and end in as many cycles, in which fewer cores do less.
        """
        ratio = board.operations(BY_CUDNN) / board.operations(OTHERS) / _TF32_OF_FP32
        cores = board.hardware.flop_per_gpu_cycle / REFERENCE_FLOP_PER_CYCLE
        return replace(
            self,
            convolution_efficiency=ratio * self.convolution_efficiency,
            flop_per_kernel=cores * self.flop_per_kernel,
        )

    def effective_flop(self, layer: LayerCount) -> float:
        """FLOP at the board's peak in the time that the GPU computes a layer."""
        return max(self.arithmetic_flop(layer), self.caches_flop(layer)) + self.filling_flop(layer)

    def filling_flop(self, layer: LayerCount) -> float:
        """FLOP at the board's peak in the time in which a layer's kernels begin and end."""
        return self._launched(layer) * self.flop_per_kernel

    def arithmetic_flop(self, layer: LayerCount) -> float:
        """FLOP at the board's peak in the time that a layer's arithmetic takes."""
        by_cudnn = number_format(layer) == BY_CUDNN
        return layer.flop / (self.convolution_efficiency if by_cudnn else self.product_efficiency)

    def caches_flop(self, layer: LayerCount) -> float:
        """FLOP at the board's peak in the time that the GPU's caches pass a layer's bytes."""
        caches = self.traffic_bytes(layer) * self.flop_per_onchip_byte
        is_thin = layer.flop < _THIN_FLOP_PER_BYTE * layer.dram_bytes
        if layer.kind.startswith("Conv") and is_thin:
            caches /= self.thin_share if layer.kind != _TOTAL else _MIXED_SHARE
        return caches

    def traffic_bytes(self, layer: LayerCount) -> float:
        """Bytes that a layer moves."""
        return layer.dram_bytes * (self.recurrent_bytes_share if _is_recurrent(layer) else 1.0)

    def energy_bytes(self, layer: LayerCount) -> float:
        """DRAM bytes whose energy a layer's bytes and arithmetic take."""
        moved = self.traffic_bytes(layer) / self.dram_efficiency
        return self.shape["traffic_activity"] * moved + self.flop_energy_bytes * layer.flop

    def of_work(self, layers: Sequence[LayerCount]) -> dict[str, float]:
        """What of a signature depends on how much of the work is arithmetic, or many kernels.

        Kernels take as long to begin and end on a GPU of fewer cores.
        """
        moved = sum(map(self.traffic_bytes, layers)) / self.dram_efficiency
        energy = sum(map(self.energy_bytes, layers))
        flop = sum(map(self.effective_flop, layers))
        return {
            "traffic_activity": energy / max(moved, 1.0),
            "unscaled_share": sum(map(self.filling_flop, layers)) / max(flop, 1.0),
        }

    def launch_cycles(self, layer: LayerCount) -> float:
        """Core cycles to launch a layer's kernels."""
        return self._launched(layer) * self.launch_cycles_per_kernel

    def _launched(self, layer: LayerCount) -> float:
        """Kernels of a layer that are launched one by one."""
        return layer.kernels * (self.recurrent_launch_share if _is_recurrent(layer) else 1.0)


def number_format(layer: LayerCount) -> str:
    """What a layer in single precision is computed in by PyTorch's defaults."""
    by_cudnn = layer.kind.startswith("Conv") or _is_recurrent(layer)
    return BY_CUDNN if by_cudnn else OTHERS


def _is_recurrent(layer: LayerCount) -> bool:
    return layer.kind in _RECURRENT


@cache
def efficiency_of(kind: str) -> Efficiency:
    """The constants for ``"train"`` or ``"infer"``."""
    estimates = read_toml(_ESTIMATES)
    if kind not in estimates:
        raise InvalidInput(f"kind is 'train' or 'infer', not {kind!r}")
    return Efficiency(**estimates[kind])


def estimate_signature(
    count: Callable[[int], Counts],
    kind: str,
    tokens: int | None = None,
    efficiency: Efficiency | None = None,
) -> Signature:
    """The signature of a model.

    Parameters
    ----------
    count : callable
        Counts of a minibatch, given its size; of all that it does: for training, the backward pass
        and the optimiser's step too.
    kind : str
        ``"train"`` or ``"infer"``.
    tokens : int, optional
        Of a sample that is a text, which the host prepares; without, it is an image.
    efficiency : Efficiency, optional
        Other constants than those of the kind.
    """
    small, large = _SIZES
    return _signature(
        count(small).layers, count(large).layers, efficiency or efficiency_of(kind), tokens
    )


def estimate_minibatch(counts: Counts, kind: str, host_cycles_per_sample: float) -> Signature:
    """The signature of a workload of one batch size, of which one minibatch was counted.

    All of the minibatch is in the parts per sample, so that it is exact at this size alone.

    Parameters
    ----------
    counts : Counts
        Of all that the minibatch does.
    kind : str
        ``"train"`` or ``"infer"``.
    host_cycles_per_sample : float
        Core cycles to prepare a sample.
    """
    known = efficiency_of(kind)
    flop = sum(map(known.effective_flop, counts.layers)) / counts.batch_size
    traffic = sum(map(known.traffic_bytes, counts.layers)) / counts.batch_size
    return _of_parts(known, counts.layers, host_cycles_per_sample, (0.0, flop), (0.0, traffic))


def estimate_from_totals(
    kind: str,
    flop_per_sample: float,
    weight_bytes: float,
    bytes_per_sample: float,
    tokens: int | None = None,
    efficiency: Efficiency | None = None,
) -> Signature:
    """The signature of a model of which only the published totals of inference are known.

    Less sure than `estimate_signature`: layers are not told apart, and the number of kernels is a
    usual one.

    Parameters
    ----------
    kind : str
        ``"train"`` or ``"infer"``; training is estimated from the totals of inference.
    flop_per_sample, weight_bytes, bytes_per_sample : float
        A minibatch of b samples does F b FLOP and moves A + S b bytes.
    tokens, efficiency
        As of `estimate_signature`.
    """
    if not (flop_per_sample > 0 and weight_bytes >= 0 and bytes_per_sample > 0):
        raise InvalidInput("FLOP and bytes per sample must be positive, bytes of weights not below")
    more_flop, more_bytes = (1.0, 1.0) if kind == "infer" else (_TRAINING_FLOP, _TRAINING_BYTES)

    def layers(size: int) -> list[LayerCount]:
        moved = (weight_bytes + bytes_per_sample * size) * _UNFOLDED_BYTES * more_bytes
        flop = flop_per_sample * size * more_flop
        return [LayerCount("(model)", _TOTAL, round(flop), round(moved), _KERNELS[kind])]

    small, large = (layers(size) for size in _SIZES)
    return _signature(small, large, efficiency or efficiency_of(kind), tokens)


def _signature(
    small: Sequence[LayerCount], large: Sequence[LayerCount], known: Efficiency, tokens: int | None
) -> Signature:
    """The lines through what the layers of two minibatches take."""
    flop = _line(*(sum(map(known.effective_flop, layers)) for layers in (small, large)))
    dram = _line(*(sum(map(known.traffic_bytes, layers)) for layers in (small, large)))
    host = known.host_cycles["image"] if tokens is None else tokens * known.host_cycles["token"]
    return _of_parts(known, large, host, flop, dram)


def _of_parts(
    known: Efficiency,
    layers: Sequence[LayerCount],
    host_cycles_per_sample: float,
    flop: tuple[float, float],
    counted_bytes: tuple[float, float],
) -> Signature:
    """The signature of layers; FLOP and bytes are fixed ones and those of a sample."""
    return Signature(
        host_cycles=known.fixed_host_samples * host_cycles_per_sample,
        host_cycles_per_sample=host_cycles_per_sample,
        flop=flop[0],
        flop_per_sample=flop[1],
        traffic_bytes=counted_bytes[0] / known.dram_efficiency,
        traffic_bytes_per_sample=counted_bytes[1] / known.dram_efficiency,
        launch_cycles=sum(map(known.launch_cycles, layers)),
        **{**known.shape, **known.of_work(layers)},
    )


def _line(at_small: float, at_large: float) -> tuple[float, float]:
    """Fixed part, which is not below zero, and part per sample."""
    small, large = _SIZES
    slope = (at_large - at_small) / (large - small)
    return max(0.0, at_large - slope * large), slope
