"""The global random number generators, as one task sees them while its code runs."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Any

import numpy as np
import torch


class Randomness:
    """Python's, NumPy's and torch's generators, seeded for one piece of work.

    Each `with` goes on where the last one ended, and leaves the generators to everybody else as it
    found them: what others draw in between changes nothing, on either side. They belong to the
    process, so that two threads must not be inside at the same time.

    Parameters
    ----------
    seed : int
        From 0, of any size.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._own: tuple[Any, ...] | None = None
        self._others: tuple[Any, ...] = ()

    def __enter__(self) -> Randomness:
        self._others = _state()
        if self._own is None:
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)
            torch.manual_seed(self._seed % 2**64)
        else:
            _set(self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._own = _state()
        _set(self._others)


def seed_loader(loader: Any, seed: int) -> None:
    """Seed the generators that a loader has of its own, or that its samplers have.

    So that the order of its minibatches depends on the seed alone, and not on how often the loader
    was used before.
    """
    sampler = getattr(loader, "sampler", None)
    batches = getattr(loader, "batch_sampler", None)
    for holder in (loader, sampler, batches, getattr(batches, "sampler", None)):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed % 2**64)


def _state() -> tuple[Any, ...]:
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if in_use else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set(state: tuple[Any, ...]) -> None:
    of_python, of_numpy, of_torch, of_cuda = state
    random.setstate(of_python)
    np.random.set_state(of_numpy)
    torch.set_rng_state(of_torch)
    if of_cuda:  # empty where nobody had used the GPU yet
        torch.cuda.set_rng_state_all(of_cuda)
