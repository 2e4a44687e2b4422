"""What a minibatch of a model needs: FLOP, DRAM bytes and kernels; and how they grow with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from powerctl.errors import InvalidInput


@dataclass(frozen=True)
class LayerCount:
    """What one module's own operators need; those of its submodules are theirs.

    Attributes
    ----------
    name : str
        Path of the module, as ``named_modules`` has it; ``"(model)"`` for the model itself and
        ``"(optimiser)"`` for the optimiser's step.
    kind : str
        Class of the module.
    flop, dram_bytes : int
        Forward, and backward if it was counted.
    kernels : int
        Operators launched.
    """

    name: str
    kind: str
    flop: int
    dram_bytes: int
    kernels: int


@dataclass(frozen=True)
class OperatorCount:
    """What all calls of one operator need."""

    name: str
    flop: int
    dram_bytes: int
    kernels: int


@dataclass(frozen=True)
class UnknownOperator:
    """An operator without a formula: its bytes are counted, its FLOP are not.

    `bytes_share` is its share of all DRAM bytes.
    """

    name: str
    calls: int
    bytes_share: float


@dataclass(frozen=True)
class Counts:
    """What one minibatch needs.

    Attributes
    ----------
    flop : int
        A multiply-add is two.
    dram_bytes : int
        Read and written, if nothing stays in a cache between operators.
    weight_bytes : int
        The part of them that reads parameters and buffers.
    kernels : int
        Operators launched.
    batch_size : int
        Samples of the minibatch.
    layers : tuple of LayerCount
        In the order in which they first ran; they add up to the totals.
    operators : tuple of OperatorCount
        The most DRAM bytes first; they add up to the totals.
    unknown : tuple of UnknownOperator
        Operators without a formula, the most bytes first.
    """

    flop: int
    dram_bytes: int
    weight_bytes: int
    kernels: int
    batch_size: int
    layers: tuple[LayerCount, ...]
    operators: tuple[OperatorCount, ...]
    unknown: tuple[UnknownOperator, ...]

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, FLOP per byte; 0 where no byte moves."""
        return self.flop / self.dram_bytes if self.dram_bytes else 0.0


@dataclass(frozen=True)
class BatchLine:
    """FLOP and bytes as straight lines over the batch size.

    Attributes
    ----------
    flop_fixed, flop_per_sample : int
        FLOP of a minibatch: fixed, and per sample.
    bytes_fixed, bytes_per_sample : int
        DRAM bytes: fixed (the weights, in inference), and per sample.
    kernels : int
        Operators launched, at any batch size.
    """

    flop_fixed: int
    flop_per_sample: int
    bytes_fixed: int
    bytes_per_sample: int
    kernels: int

    def flop(self, batch_size: int) -> int:
        """FLOP of a minibatch."""
        return self.flop_fixed + self.flop_per_sample * batch_size

    def dram_bytes(self, batch_size: int) -> int:
        """DRAM bytes of a minibatch."""
        return self.bytes_fixed + self.bytes_per_sample * batch_size


def linear_in_batch(
    count: Callable[[int], Counts], sizes: tuple[int, int, int] = (2, 4, 8)
) -> BatchLine:
    """The lines through the counts at two batch sizes, checked at a third.

    Parameters
    ----------
    count : callable
        Counts of a minibatch, given its size.
    sizes : tuple of int
        The two batch sizes to fit and the one to check at. One sample alone is best left out: some
        copies are views then, and batch norm does not train.

    Raises
    ------
    InvalidInput
        If two sizes are the same, or the third is not on the line; the message says by how much.
    """
    low, high, check = sizes
    if low == high:
        raise InvalidInput(f"two different batch sizes are needed to fit a line, got {sizes}")
    at_low, at_high, at_check = count(low), count(high), count(check)

    def line(what: str) -> tuple[int, int]:
        y0, y1, y2 = (getattr(counts, what) for counts in (at_low, at_high, at_check))
        slope = Fraction(y1 - y0, high - low)
        fixed = y0 - slope * low
        if slope.denominator != 1 or fixed + slope * check != y2:
            raise InvalidInput(
                f"{what} is not linear in the batch size: {y0} at {low} and {y1} at {high}, but "
                f"{y2} at {check}; count the batch sizes of interest one by one"
            )
        return int(fixed), int(slope)

    flop, dram_bytes = line("flop"), line("dram_bytes")
    return BatchLine(*flop, *dram_bytes, kernels=at_check.kernels)
