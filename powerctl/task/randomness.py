"""The global random number generators, as one task sees them while its code runs."""

from __future__ import annotations

import ctypes
import random
import sys
from functools import cache
from typing import Any

import numpy as np
import torch

from powerctl.accelerator import n_gpus


class Randomness:
    """Python's, NumPy's and torch's generators, seeded for one piece of work.

    Each `with` goes on where the last one ended, and leaves the generators to everybody else as it
    found them: what others draw in between changes nothing, on either side. They belong to the
    process, so that two threads must not be inside at the same time.

    Parameters
    ----------
    seed : int
        From 0, of any size.
    restores : bool
        Without, a `with` seeds, and somebody around it restores: the states are copied for many
        pieces of work together, as a simulation wants it.
    """

    def __init__(self, seed: int, *, restores: bool = True) -> None:
        self._seed = seed
        self._restores = restores
        self._own: tuple[Any, ...] | None = None
        self._others: tuple[Any, ...] = ()

    def __enter__(self) -> Randomness:
        _be_quick()
        if self._restores:
            self._others = _state()
        if self._own is None:
            random.seed(self._seed)
            np.random.seed(self._seed % 2**32)
            _seed_torch(self._seed % 2**64)
        else:
            _set(self._own)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._restores:
            self._own = _state()
            _set(self._others)


def _seed_torch(seed: int) -> None:
    """Seed torch as `torch.manual_seed` does, which on a host without GPU takes a millisecond."""
    if n_gpus():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def seed_loader(loader: Any, seed: int) -> None:
    """Seed the generators that a loader has of its own, or its samplers, or its data set.

    So that the order of its minibatches, and how they are augmented, depends on the seed alone, and
    not on how often the loader was used before.
    """
    holders, seen = [loader], set()
    while holders:
        holder = holders.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for name, value in getattr(holder, "__dict__", {}).items():
            _seed_generator(value, seed)
            if name in _HOLDERS:
                holders.append(value)
            elif name in _MANY and isinstance(value, (list, tuple)):
                holders += value


# attributes of loaders, samplers and data sets that may have generators in turn
_HOLDERS = {"sampler", "batch_sampler", "dataset", "transform"}
_MANY = {"datasets", "transforms"}


def _seed_generator(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed % 2**64)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed % 2**32)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state


_WORDS = 624  # of a Mersenne twister; the position among them follows
_BYTES = 4 * _WORDS + 4


class _QuickTwister(np.random.MT19937):
    """NumPy's own generator, whose state is copied as a whole.

    NumPy copies it word by word, which takes a tenth of a millisecond; it is done four times for
    every minibatch.
    """

    @property
    def state(self) -> Any:
        """The state in the form that `numpy.random.MT19937` gives it."""
        whole = ctypes.string_at(self.ctypes.state_address, _BYTES)
        key = np.frombuffer(whole, np.uint32, _WORDS)
        position = int.from_bytes(whole[-4:], sys.byteorder)
        return {"bit_generator": "MT19937", "state": {"key": key, "pos": position}}

    @state.setter
    def state(self, value: Any) -> None:
        key = np.asarray(value["state"]["key"], np.uint32).tobytes()
        position = int(value["state"]["pos"]).to_bytes(4, sys.byteorder)
        ctypes.memmove(self.ctypes.state_address, key + position, _BYTES)

    def is_right(self) -> bool:
        """Whether the state lies in memory as is assumed here."""
        quick, own = self.state["state"], super().state["state"]
        return bool(np.array_equal(quick["key"], own["key"]) and quick["pos"] == own["pos"])


@cache
def _be_quick() -> None:
    """Give NumPy's global generator a state that is quick to copy; what it draws is the same."""
    generators: Any = np.random  # whose types do not tell of two of its functions
    if type(generators.get_bit_generator()) is np.random.MT19937:
        twister = _QuickTwister(0)
        if twister.is_right():
            state = np.random.get_state()
            generators.set_bit_generator(twister)
            np.random.set_state(state)


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
