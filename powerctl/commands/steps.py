"""Minibatches of the user's own: the functions that ``--step pkg.module:make`` names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from powerctl.errors import InvalidInput
from powerctl.plugins import blamed, load_object

if TYPE_CHECKING:
    from powerctl.profiler import Step


def load_step(name: str, sizes: Sequence[int]) -> Mapping[int, Step]:
    """The step of each batch size, from a function: ``pkg.module:make`` or ``file.py:make``."""
    make = load_object(name)
    try:
        takes_size = bool(inspect.signature(make).parameters)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"--step {name}: {error}") from None
    if not takes_size and len(sizes) > 1:
        raise InvalidInput(
            f"--step {name}: to run several batch sizes, it must take the batch size"
        )
    with blamed(name):
        steps = {size: make(size) if takes_size else make() for size in sizes}
    if not all(callable(step) for step in steps.values()):
        raise InvalidInput(f"--step {name}: it did not return a function")
    return steps
