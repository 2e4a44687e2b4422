"""What an object has come to, as plain values, and back: policies, aggregations, fleets.

The state is read into an object of the same configuration, whose attributes say what is wanted of
each value; so nothing is constructed, or called, that a file names.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord

from powerctl.errors import InvalidInput

State = dict[str, Any]
"""Numbers, texts, None, arrays, array records, and lists, tuples, frozensets and dicts of them."""

_PLAIN = (
    *(type(None), bool, int, float, str, list, tuple, frozenset, dict),
    *(np.generic, np.ndarray, ArrayRecord),
)


def state_of(thing: object) -> State:
    """All attributes, those of objects in them included; functions, which do not change, are not.

    Of a dataclass that keeps some to itself, those alone: the others are its configuration.

    Arrays are shared, not copied.
    """
    return {
        name: value if isinstance(value, _PLAIN) else state_of(value)
        for name, value in _attributes(thing).items()
    }


def restore(thing: object, state: State) -> None:
    """Give an object the attributes of another.

    Raises
    ------
    InvalidInput
        If it has others, as after a change of the code.
    """
    own = _attributes(thing)
    if own.keys() != state.keys():
        raise InvalidInput(
            f"not the state of a {type(thing).__name__}, which has {', '.join(own) or 'none'}: "
            f"{', '.join(state) or 'nothing'}"
        )
    for name, value in state.items():
        if isinstance(own[name], _PLAIN):
            object.__setattr__(thing, name, value)  # parameters are frozen, and stay equal
        else:
            restore(own[name], value)


def _attributes(thing: object) -> dict[str, Any]:
    """Of a dataclass its fields: what it has computed from them beside is not its state."""
    if is_dataclass(thing):
        own = [item for item in fields(thing) if not item.init]
        return {item.name: getattr(thing, item.name) for item in own or fields(thing)}
    return {name: value for name, value in vars(thing).items() if not callable(value)}
