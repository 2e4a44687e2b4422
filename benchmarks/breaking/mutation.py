"""Changes of a valid example by its structure alone, and a failing case made small.

An example is a tree of dicts, lists, numbers, texts, bytes and members of enumerations. What it is
of is not known here: a change drops, repeats, replaces or nests any part of it.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

Path = tuple[Any, ...]
_NUMBERS = (0, 1, -1, 2, 7, 0.5, -0.0, 1e-300, -1e30, 1e308, math.inf, -math.inf, math.nan)
_BIG = (2**31, 2**63 - 1, -(2**63), 2**64, 10**30)
_TEXTS = ("", " ", "\n", "\0", "é", "%s{}", "..", "../x", "/", "-", "nan", "1e999", "[]", '"', "\\")
_TOKENS = ("0", "-1", "1e308", "-inf", "nan", "1e999", "true", "null", "[", "]", "{", "}", "=", ",")
_AT_MOST = 20  # elements of one list, of one example, that are looked at
_REPEATS = (2, 100, 20_000)
_MOST = 1_000_000  # elements that a repetition makes: what can be slow or large is so with those
_DEPTHS = (1, 100, 5_000)


@dataclass(frozen=True)
class Put:
    """A part of an example replaced, or one that it has not added."""

    path: Path
    value: Any

    def apply(self, parent: Any) -> None:
        """Change what holds the part."""
        parent[self.path[-1]] = copy.deepcopy(self.value)


@dataclass(frozen=True)
class Drop:
    """A part of an example left out."""

    path: Path

    def apply(self, parent: Any) -> None:
        """Change what held the part."""
        del parent[self.path[-1]]


@dataclass(frozen=True)
class Repeat:
    """A part of an example that is a list, a text or bytes, from one place to another repeated."""

    path: Path
    start: int
    stop: int
    times: int

    def apply(self, parent: Any) -> None:
        """Change what holds the part."""
        whole = parent[self.path[-1]]
        part = whole[self.start : self.stop]
        times = min(self.times, max(2, _MOST // (len(part) or 1)))
        parent[self.path[-1]] = whole[: self.start] + part * times + whole[self.stop :]


Edit = Put | Drop | Repeat


def changed(example: Any, edits: Sequence[Edit]) -> Any:
    """The example after some changes; one whose place is gone by then does nothing."""
    root = [copy.deepcopy(example)]
    for edit in edits:
        parent: Any = root
        try:
            for key in (0, *edit.path)[:-1]:
                parent = parent[key]
            full = type(edit)(**{**vars(edit), "path": (0, *edit.path)})
            full.apply(parent)
        except (LookupError, TypeError):
            continue
    return root[0]


def some_edits(example: Any, rng: random.Random) -> list[Edit]:
    """One to three changes, each of the example as the ones before leave it."""
    edits: list[Edit] = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if now := changed(example, edits):  # else nothing is left of it
            edits.append(_edit(now, rng))
    return edits


def smaller(edits: Sequence[Edit], fails: Callable[[Sequence[Edit]], bool]) -> list[Edit]:
    """The fewest and simplest of some changes with which a case still fails."""
    found = list(edits)
    progress = True
    while progress:
        progress = False
        for candidate in _simpler(found):
            if fails(candidate):
                found, progress = candidate, True
                break
    return found


def _simpler(edits: list[Edit]) -> Iterator[list[Edit]]:
    for i, edit in enumerate(edits):
        before, after = edits[:i], edits[i + 1 :]
        if len(edits) > 1:
            yield before + after
        if isinstance(edit, Repeat) and edit.times > 2:
            yield [*before, Repeat(edit.path, edit.start, edit.stop, edit.times // 2), *after]
        if isinstance(edit, Put):
            for value in _simpler_values(edit.value):
                yield [*before, Put(edit.path, value), *after]


def _simpler_values(value: Any) -> Iterator[Any]:
    if isinstance(value, str | bytes | list) and len(value) > 1:
        middle = len(value) // 2
        yield from (value[:middle], value[middle:])
    elif isinstance(value, int | float) and math.isfinite(value):
        yield from (one for one in (0, 1, -1) if abs(one) < abs(value))
        if abs(value) > 100:
            yield type(value)(value // 10)


def _parts(value: Any, rng: random.Random, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The paths of an example, and what is there; of a long list, some of it."""
    yield path, value
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _parts(one, rng, (*path, key))
    elif isinstance(value, list):
        count = min(len(value), _AT_MOST)
        for key in rng.sample(range(len(value)), count):
            yield from _parts(value[key], rng, (*path, key))


def _edit(example: Any, rng: random.Random) -> Edit:
    parts = list(_parts(example, rng))
    path, value = rng.choice(parts[1:] or parts)
    if isinstance(value, Enum):
        return Put(path, rng.choice(list(type(value))))
    if isinstance(value, str | bytes | list) and value and rng.random() < 0.5:
        start = rng.randrange(len(value))
        stop = min(len(value), start + rng.choice((1, 1, 1, 3, len(value))))
        if rng.random() < 0.3 or (isinstance(value, str) and len(value) < 3):
            return Repeat(path, start, stop, rng.choice((0, 0, *_REPEATS)))
        if isinstance(value, bytes):
            odd = bytes(
                rng.choice((0, 255, 127, 128, rng.randrange(256))) for _ in range(stop - start)
            )
            return Put(path, value[:start] + odd[:4] + value[start + len(odd[:4]) :])
        if isinstance(value, str):
            return Put(path, value[:start] + rng.choice(_TEXTS) + value[stop:])
    if path and rng.random() < 0.1:
        return Drop(path)
    if path and isinstance(path[-1], str) and rng.random() < 0.05:
        return Put((*path[:-1], rng.choice((*_TEXTS, path[-1] + "x"))), value)
    kind = rng.random()
    if kind < 0.15:  # what stands elsewhere
        return Put(path, rng.choice(parts[1:] or parts)[1])
    if kind < 0.25:
        return Put(path, _nested(value, rng))
    if kind < 0.35:
        return Put(path, rng.choice(([], {}, [value, value], True, b"", "", 0)))
    return Put(path, _odd(value, rng))


def _nested(value: Any, rng: random.Random) -> Any:
    depth = rng.choice(_DEPTHS)
    if isinstance(value, str):
        return "[" * depth + value + "]" * rng.choice((0, depth))
    for _ in range(min(depth, 100)):
        value = [value]
    return value


def _odd(value: Any, rng: random.Random) -> Any:
    """Another value, most often of the same type, at the ends of what it can be."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        number = rng.choice((*_NUMBERS, *_BIG, -value, value * 10, value + 1))
        if isinstance(value, float) and abs(number) < 1e300:
            return float(number)
        return number
    if isinstance(value, str):
        digits = "9" * rng.choice((20, 400, 5_000))
        return rng.choice((*_TEXTS, *_TOKENS, digits, f"-{digits}", "x" * 300))
    if isinstance(value, bytes):
        return rng.choice((b"", b"\0", b"\xff" * 9, rng.randbytes(30)))
    return rng.choice((*_NUMBERS, *_BIG, *_TEXTS))
