"""Batches between an agent and a model's process: small messages, and tensors in shared memory.

Neither side trusts what the other writes: sizes are checked, and the agent copies what it takes.
"""

from __future__ import annotations

import json
import math
import os
import select
import time
from collections.abc import Sequence
from mmap import mmap
from typing import Any

import torch

from wattfed.client.agent.framing import LONGEST, FrameBuffer, framed
from wattfed.client.agent.model_files import DTYPES

_ALIGNED = 64  # bytes at which a tensor may begin
_MOST_DIMENSIONS = 64  # of torch


class Exchange:
    """One end of a channel, and the memory that both ends have mapped.

    Parameters
    ----------
    channel : int
        Descriptor of a socket; it is only read and written, which a sandbox allows.

    Attributes
    ----------
    memory : mmap
        Holds the tensors; empty until `map` is called.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._frames = FrameBuffer()
        self._readable = select.poll()
        self._readable.register(channel, select.POLLIN)
        self.memory: mmap | bytearray = bytearray()

    def map(self, descriptor: int, size: int) -> None:
        """Map the memory that both ends share."""
        self.memory = mmap(descriptor, size)

    def send(self, message: dict[str, Any]) -> None:
        """Write a message to the other end."""
        os.write(self._channel, framed(json.dumps(message).encode()))

    def receive(self, limit_s: float | None = None) -> dict[str, Any]:
        """The next message of the other end.

        Raises
        ------
        EOFError
            If the other end is closed.
        TimeoutError
            If it has not come within a limit.
        ValueError
            If it is none.
        """
        until_s = None if limit_s is None else time.monotonic() + limit_s
        while (data := self._frames.next()) is None:
            if until_s is not None:
                left_s = until_s - time.monotonic()
                if left_s <= 0 or not self._readable.poll(1e3 * left_s):
                    raise TimeoutError
            more = os.read(self._channel, LONGEST)
            if not more:
                raise EOFError
            self._frames.add(more)
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("a message is a table")
        return message

    def put(self, tensors: Sequence[torch.Tensor], start: int = 0) -> tuple[list[list[int]], int]:
        """Copy tensors into the memory; their types and shapes, and where they end."""
        heads = []
        for tensor in tensors:
            if tensor.dtype not in DTYPES:
                raise ValueError(f"tensors of {tensor.dtype} cannot be sent")
            end = start + tensor.nbytes
            if end > len(self.memory):
                raise ValueError(f"tensors of {end} bytes: at most {len(self.memory)} in and out")
            self._view(tensor.dtype, tuple(tensor.shape), start).copy_(tensor)
            heads.append([DTYPES.index(tensor.dtype), *tensor.shape])
            start = _aligned(end)
        return heads, start

    def get(self, heads: Any, start: int = 0) -> tuple[list[torch.Tensor], int]:
        """The tensors of types and shapes, as they lie in the memory, and where they end.

        Raises
        ------
        ValueError
            If they are not there.
        """
        tensors = []
        for head in heads:
            if not all(type(number) is int and number >= 0 for number in head):
                raise ValueError("a tensor's type and shape are whole numbers")
            if not 1 <= len(head) <= 1 + _MOST_DIMENSIONS or head[0] >= len(DTYPES):
                raise ValueError(f"a tensor of type {head[:1]} in {len(head) - 1} dimensions")
            dtype, shape = DTYPES[head[0]], tuple(head[1:])
            end = start + math.prod(shape) * dtype.itemsize
            if end > len(self.memory):
                raise ValueError(f"a tensor ends at {end}, the memory at {len(self.memory)}")
            tensors.append(self._view(dtype, shape, start))
            start = _aligned(end)
        return tensors, start

    def _view(self, dtype: torch.dtype, shape: tuple[int, ...], start: int) -> torch.Tensor:
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=start).reshape(shape)


def _aligned(end: int) -> int:
    return -(-end // _ALIGNED) * _ALIGNED
