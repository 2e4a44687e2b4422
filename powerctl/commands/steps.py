"""Minibatches of the user's own: the functions that ``--step pkg.module:make`` names."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from powerctl.errors import InvalidInput

if TYPE_CHECKING:
    from powerctl.profiler import Step


def load_step(name: str, sizes: Sequence[int]) -> Mapping[int, Step]:
    """The step of each batch size, from the function that ``pkg.module:make`` names."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise InvalidInput(f"--step {name}: write pkg.module:make")
    sys.path.insert(0, "")  # as `python -m` does: the module is often beside the person
    try:
        make = getattr(importlib.import_module(module_name), function_name)
        takes_size = bool(inspect.signature(make).parameters)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InvalidInput(f"--step {name}: {error}") from None
    if not takes_size and len(sizes) > 1:
        raise InvalidInput(
            f"--step {name}: to run several batch sizes, {function_name} must take the batch size"
        )
    steps = {size: make(size) if takes_size else make() for size in sizes}
    if not all(callable(step) for step in steps.values()):
        raise InvalidInput(f"--step {name}: {function_name} did not return a function")
    return steps
