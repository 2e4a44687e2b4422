"""What a minibatch of a model needs: FLOP, DRAM bytes and kernels."""

from __future__ import annotations

from dataclasses import dataclass


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
    """What one minibatch of a model needs: FLOP, DRAM bytes, kernels.

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
    def known_share(self) -> float:
        """Of all bytes, what operators move whose FLOP are known."""
        return 1 - min(1.0, sum(operator.bytes_share for operator in self.unknown))

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, FLOP per byte; 0 where no byte moves."""
        return self.flop / self.dram_bytes if self.dram_bytes else 0.0
