"""Seeds of many pieces of work, drawn in one go: those that NumPy draws one at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from powerctl.modes import IntArray

# of numpy.random.SeedSequence, whose numbers NumPy promises to keep (O'Neill's seed_seq_fe)
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)
_POOL = 4
_Words = NDArray[np.uint32]


def seeds_of(whole: tuple[int, ...], parts: IntArray) -> list[int]:
    """The first word of ``SeedSequence((*whole, part))``, for each part.

    Parameters
    ----------
    whole : tuple of int
        What the parts have in common: numbers from 0, of any size.
    parts : IntArray, shape (n,)
        Numbers from 0, below 2 ** 32.
    """
    words = [np.uint32(number >> 32 * i & 0xFFFFFFFF) for number in whole for i in _places(number)]
    entropy = [np.full(len(parts), word) for word in words] + [parts.astype(np.uint32)]
    entropy += [np.zeros(len(parts), np.uint32)] * (_POOL - len(entropy))
    hashed = _Hash(_INIT_A, _MULT_A)
    pool = [hashed(word) for word in entropy[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mixed(pool[target], hashed(pool[source]))
    for word in entropy[_POOL:]:
        pool = [_mixed(one, hashed(word)) for one in pool]
    seeds: list[int] = _Hash(_INIT_B, _MULT_B)(pool[0]).tolist()
    return seeds


def _places(number: int) -> range:
    """The places of the 32-bit words of a number; 0 has one."""
    return range(max(1, -(-number.bit_length() // 32)))


class _Hash:
    """Hashes words, each with the next of a row of constants."""

    def __init__(self, first: int, factor: int) -> None:
        self._constant, self._factor = first, factor

    def __call__(self, words: _Words) -> _Words:
        hashed = words ^ np.uint32(self._constant)
        self._constant = self._constant * self._factor & 0xFFFFFFFF
        hashed = hashed * np.uint32(self._constant)
        return _folded(hashed)


def _mixed(one: _Words, other: _Words) -> _Words:
    return _folded(one * _MIX_LEFT - other * _MIX_RIGHT)


def _folded(words: _Words) -> _Words:
    folded: _Words = words ^ (words >> _SHIFT)
    return folded
