"""The signature of a workload that was never measured, from its FLOP, bytes and kernels.

A GPU reaches the peaks of its board in few kernels. Beside arithmetic and DRAM there is the traffic
through its caches, which runs at the GPU's clock and bounds most layers. So a layer takes

    max(F / e, q B / s)  of the board's peak FLOP, its effective FLOP, and  B / d  bytes of DRAM.

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
from powerctl.cost_model import Signature
from powerctl.errors import InvalidInput
from powerctl.pagoda.counts import Counts, LayerCount
from powerctl.reading import read_toml

CONVOLUTIONS, OTHERS = "tf32", "fp32"
"""The number formats of PyTorch's defaults: cuDNN's convolutions take TF32, products do not."""

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
        FLOP/s of convolutions and of matrix products, relative to the board's FP32 peak; above 1
        on tensor cores.
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
    fixed_samples : float
        Samples that take as long as what a minibatch computes whatever its size.
    host_cycles : float
        Core cycles to prepare a minibatch.
    host_cycles_per_sample : mapping of str to float
        Core cycles to prepare a sample, by what it is: ``image`` or ``tokens``.
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
    fixed_samples: float
    host_cycles: float
    host_cycles_per_sample: Mapping[str, float]
    shape: Mapping[str, float]

    def on(self, board: Board) -> Efficiency:
        """The same where a board's tensor cores give TF32 more or less than an Orin's: or none."""
        ratio = board.operations(CONVOLUTIONS) / board.operations(OTHERS) / _TF32_OF_FP32
        return replace(self, convolution_efficiency=ratio * self.convolution_efficiency)

    def effective_flop(self, layer: LayerCount) -> float:
        """FLOP at the board's peak in the time that the GPU computes a layer."""
        return max(self.arithmetic_flop(layer), self.caches_flop(layer))

    def arithmetic_flop(self, layer: LayerCount) -> float:
        """FLOP at the board's peak in the time that a layer's arithmetic takes."""
        is_convolution = number_format(layer) == CONVOLUTIONS
        return layer.flop / (
            self.convolution_efficiency if is_convolution else self.product_efficiency
        )

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

    def launch_cycles(self, layer: LayerCount) -> float:
        """Core cycles to launch a layer's kernels."""
        share = self.recurrent_launch_share if _is_recurrent(layer) else 1.0
        return share * layer.kernels * self.launch_cycles_per_kernel


def number_format(layer: LayerCount) -> str:
    """What a layer in single precision is computed in by PyTorch's defaults."""
    return CONVOLUTIONS if layer.kind.startswith("Conv") else OTHERS


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
    sample: str = "image",
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
    sample : str
        What a sample is, ``"image"`` or ``"tokens"``: what the host does for it.
    efficiency : Efficiency, optional
        Other constants than those of the kind.
    """
    small, large = _SIZES
    return _signature(
        count(small).layers, count(large).layers, efficiency or efficiency_of(kind), sample
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
    return Signature(
        host_cycles=known.host_cycles,
        host_cycles_per_sample=host_cycles_per_sample,
        flop=known.fixed_samples * flop,
        flop_per_sample=flop,
        traffic_bytes=0.0,
        traffic_bytes_per_sample=traffic / known.dram_efficiency,
        launch_cycles=sum(map(known.launch_cycles, counts.layers)),
        **known.shape,
    )


def estimate_from_totals(
    kind: str,
    flop_per_sample: float,
    weight_bytes: float,
    bytes_per_sample: float,
    sample: str = "image",
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
    sample, efficiency
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
    return _signature(small, large, efficiency or efficiency_of(kind), sample)


def _signature(
    small: Sequence[LayerCount], large: Sequence[LayerCount], known: Efficiency, sample: str
) -> Signature:
    """The lines through what the layers of two minibatches take."""
    if sample not in known.host_cycles_per_sample:
        raise InvalidInput(
            f"a sample is one of {', '.join(known.host_cycles_per_sample)}, not {sample!r}"
        )
    flop = _line(*(sum(map(known.effective_flop, layers)) for layers in (small, large)))
    dram = _line(*(sum(map(known.traffic_bytes, layers)) for layers in (small, large)))
    return Signature(
        host_cycles=known.host_cycles,
        host_cycles_per_sample=known.host_cycles_per_sample[sample],
        flop=flop[0] + known.fixed_samples * flop[1],
        flop_per_sample=flop[1],
        traffic_bytes=dram[0] / known.dram_efficiency,
        traffic_bytes_per_sample=dram[1] / known.dram_efficiency,
        launch_cycles=sum(map(known.launch_cycles, large)),
        **known.shape,
    )


def _line(at_small: float, at_large: float) -> tuple[float, float]:
    """Fixed part, which is not below zero, and part per sample."""
    small, large = _SIZES
    slope = (at_large - at_small) / (large - small)
    return max(0.0, at_large - slope * large), slope
