"""What an object has learned, as plain values, and back: policies, aggregations, what they know.

Objects say themselves what that is. The state is read into an object of the same configuration, so
that nothing is constructed, or called, that a file names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from powerctl.errors import InvalidInput

State = dict[str, Any]
"""Numbers, texts, None, arrays, array records, and lists, tuples, frozensets and dicts of them."""


@runtime_checkable
class Stateful(Protocol):
    """An object that learns, and can hand on what it has learned."""

    def state(self) -> State:
        """What it has learned; its parameters are not in it. Arrays are shared, not copied."""
        ...

    def restore(self, state: State) -> None:
        """Go on from the state of another; raises `InvalidInput` if it is of other kinds."""
        ...


class Memory:
    """Gives an object `state` and `restore` for the attributes that it lists in `remembers`.

    What such an attribute holds is a plain value, or has a memory itself.
    """

    remembers: ClassVar[tuple[str, ...]]

    def state(self) -> State:
        """What it remembers, by name."""
        return _values_of(self, self.remembers)

    def restore(self, state: State) -> None:
        """Remember what another did; raises `InvalidInput` if that is something else."""
        _set_values(self, self.remembers, state)


class AttributeMemory:
    """The state of an object that has no such methods: some of its attributes, or none.

    Parameters
    ----------
    thing : object
        Whose state it is.
    names : sequence of str
        The attributes.
    lacks_state : str
        Why the object cannot go on from them; empty if it can.
    """

    def __init__(self, thing: object, names: Sequence[str] = (), lacks_state: str = "") -> None:
        self._thing, self._names, self._lacks_state = thing, names, lacks_state

    def state(self) -> State:
        """The attributes of the object, by name."""
        return _values_of(self._thing, self._names)

    def restore(self, state: State) -> None:
        """Set the attributes to those of another; raises `InvalidInput` if that cannot be."""
        if self._lacks_state:
            raise InvalidInput(self._lacks_state)
        _set_values(self._thing, self._names, state)


def lacks_state(thing: object) -> str:
    """Why somebody's object cannot go on from what it has learned; empty if it can.

    A frozen dataclass says that it keeps nothing.
    """
    if isinstance(thing, Stateful) or _is_frozen(thing):
        return ""
    return (
        f"{type(thing).__name__} does not tell what it keeps from round to round; give it state() "
        "and restore(state), or make it a frozen dataclass if it keeps nothing"
    )


def memory_of(thing: object) -> Stateful:
    """The object itself, if it hands on what it has learned; else what says that there is none."""
    if isinstance(thing, Stateful):
        return thing
    return AttributeMemory(thing, lacks_state=lacks_state(thing))


def _values_of(thing: object, names: Sequence[str]) -> State:
    """Some attributes of an object; of those that have a memory themselves, its state."""
    values = ((name, getattr(thing, name)) for name in names)
    return {name: v.state() if isinstance(v, Memory) else v for name, v in values}


def _set_values(thing: object, names: Sequence[str], state: State) -> None:
    """Give an object the attributes of another, which must be of the same names."""
    if set(names) != state.keys():
        raise InvalidInput(
            f"not the state of a {type(thing).__name__}, which has {', '.join(names) or 'none'}: "
            f"{', '.join(state) or 'nothing'}"
        )
    for name, value in state.items():
        own = getattr(thing, name)
        if isinstance(own, Memory):
            own.restore(value)
        else:
            setattr(thing, name, value)


def _is_frozen(thing: object) -> bool:
    parameters = getattr(type(thing), "__dataclass_params__", None)
    return is_dataclass(thing) and parameters is not None and bool(parameters.frozen)
