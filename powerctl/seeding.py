"""Seeds and generators of many pieces of work, drawn in one go: those that NumPy draws one by one.

NumPy takes ten microseconds or more for each, which is a tenth of an idle client's round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

# of numpy.random.SeedSequence, whose numbers NumPy promises to keep (O'Neill's seed_seq_fe)
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)
_POOL = 4  # words that all entropy is mixed into
_OF_PCG64 = 8  # words that it is seeded with
_Words = NDArray[np.uint32]


def seeds_of(whole: tuple[int, ...], parts: Sequence[int]) -> list[int]:
    """The first word of ``SeedSequence((*whole, part))``, for each part.

    Parameters
    ----------
    whole : tuple of int
        What the parts have in common: numbers from 0, of any size.
    parts : sequence of int
        Numbers from 0, below 2 ** 32.
    """
    words = [number >> 32 * i & 0xFFFFFFFF for number in whole for i in _places(number)]
    entropy = [np.full(len(parts), word, np.uint32) for word in words]
    seeds: list[int] = _states([*entropy, np.array(parts, np.uint32)], 1)[:, 0].tolist()
    return seeds


def generators_of(seeds: Sequence[int], parts: Sequence[int]) -> list[Generator]:
    """What ``default_rng((seed, part))`` gives, for each pair of numbers from 0, below 2 ** 32."""
    states = _states([np.array(seeds, np.uint32), np.array(parts, np.uint32)], _OF_PCG64)
    drawn: list[Any] = [_Drawn(state) for state in states.view(np.uint64)]  # types know fewer
    return [Generator(PCG64(one)) for one in drawn]


class _Drawn(ISeedSequence):
    """A seed sequence whose words have been drawn already."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """The words, of which as many are asked for as there are."""
        return self._words


def _places(number: int) -> range:
    """The places of the 32-bit words of a number; 0 has one."""
    return range(max(1, -(-number.bit_length() // 32)))


def _states(entropy: Sequence[_Words], n_words: int) -> _Words:
    """What seed sequences generate, shape (n, n_words); their entropy is words of shape (n,)."""
    n = len(entropy[0])
    padded = [*entropy, *(np.zeros(n, np.uint32) for _ in range(_POOL - len(entropy)))]
    hashed = _Hash(_INIT_A, _MULT_A)
    pool = [hashed(words) for words in padded[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mixed(pool[target], hashed(pool[source]))
    for words in padded[_POOL:]:
        pool = [_mixed(one, hashed(words)) for one in pool]
    hashed = _Hash(_INIT_B, _MULT_B)
    states = np.empty((n, n_words), np.uint32)
    for i in range(n_words):
        states[:, i] = hashed(pool[i % _POOL])
    return states


class _Hash:
    """Hashes words, each with the next of a row of constants."""

    def __init__(self, first: int, factor: int) -> None:
        self._constant, self._factor = first, factor

    def __call__(self, words: _Words) -> _Words:
        hashed = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & 0xFFFFFFFF
        return _folded(hashed * np.uint32(self._constant))


def _mixed(one: _Words, other: _Words) -> _Words:
    return _folded(one * _MIX_LEFT - other * _MIX_RIGHT)


def _folded(words: _Words) -> _Words:
    folded: _Words = words ^ (words >> _SHIFT)
    return folded
