"""Fusing pointwise operators into the operator before, as compilers do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Launch:
    """One operator that ran.

    Attributes
    ----------
    operator, layer : str
        Its name, and the module that called it.
    flop, weight_bytes : int
        What it computed, and the bytes of weights among those it read.
    reads, writes : mapping
        Bytes by the number of the memory they are in.
    known, fusable : bool
        Whether there is a formula for it; whether it can join the operator before.
    kernels : int
        1, or 0 if it joined another.
    """

    operator: str
    layer: str
    flop: int
    weight_bytes: int
    reads: dict[int, int]
    writes: dict[int, int]
    known: bool = True
    fusable: bool = False
    kernels: int = 1

    @property
    def dram_bytes(self) -> int:
        """Bytes read and written."""
        return sum(self.reads.values()) + sum(self.writes.values())


def fused(launches: Sequence[Launch]) -> list[Launch]:
    """The launches as they are if pointwise operators join the operator before.

    An operator joins the kernel that wrote the last of its inputs, if that input has the size of
    its result. What a kernel writes and only it reads stays on the chip; what several of its
    operators read is read once.
    """
    kernel_of, last_writer = [], dict[int, int]()
    for index, launch in enumerate(launches):
        kernel = index
        if launch.fusable:
            kernel = _joined(launch, last_writer, index)
        kernel_of.append(kernel)
        last_writer |= dict.fromkeys(launch.writes, kernel)

    readers, members = defaultdict[int, set[int]](set), defaultdict[int, list[int]](list)
    for index, launch in enumerate(launches):
        members[kernel_of[index]].append(index)
        for memory in launch.reads:
            readers[memory].add(kernel_of[index])
    result = list(launches)
    for kernel, indices in members.items():
        _fuse(result, indices, kernel, readers)
    return result


def _joined(launch: Launch, last_writer: dict[int, int], alone: int) -> int:
    """The kernel that a pointwise operator joins, or a new one."""
    written = {memory: last_writer[memory] for memory in launch.reads if memory in last_writer}
    if not written:
        return alone
    kernel = max(written.values())
    n_bytes = sum(launch.reads[memory] for memory, by in written.items() if by == kernel)
    return kernel if n_bytes == sum(launch.writes.values()) else alone


def _fuse(
    launches: list[Launch], indices: list[int], kernel: int, readers: dict[int, set[int]]
) -> None:
    """Strike out what the operators of one kernel need not read or write."""
    at_hand, inner = set[int](), set[int]()  # already read or written; first written here
    last = {memory: index for index in indices for memory in launches[index].writes}
    for index in indices:
        launch = launches[index]
        reads = {memory: n for memory, n in launch.reads.items() if memory not in at_hand}
        inner |= launch.writes.keys() - launch.reads.keys() - at_hand
        at_hand |= launch.reads.keys() | launch.writes.keys()
        writes = {
            memory: n
            for memory, n in launch.writes.items()
            if last[memory] == index and not (memory in inner and readers[memory] == {kernel})
        }
        launches[index] = replace(
            launch, reads=reads, writes=writes, kernels=int(index == indices[0])
        )
