"""What an object has come to, as plain values, and back: policies, aggregations, what they know.

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
        """What it has come to; its parameters are not in it. Arrays are shared, not copied."""
        ...

    def restore(self, state: State) -> None:
        """Go on from the state of another; raises `InvalidInput` if it is of other kinds."""
        ...


class Memory:
    """Gives an object `state` and `restore` for the attributes that it lists in `remembers`.

    What such an attribute holds is a plain value, or has a state itself.
    """

    remembers: ClassVar[tuple[str, ...]]

    def state(self) -> State:
        """What it remembers, by name."""
        return state_of_attributes(self, self.remembers)

    def restore(self, state: State) -> None:
        """Remember what another did; raises `InvalidInput` if that is something else."""
        restore_attributes(self, self.remembers, state)


def state_of_attributes(thing: object, names: Sequence[str]) -> State:
    """Some attributes of an object; of those that have a state themselves, that."""
    values = ((name, getattr(thing, name)) for name in names)
    return {name: v.state() if isinstance(v, Stateful) else v for name, v in values}


def restore_attributes(thing: object, names: Sequence[str], state: State) -> None:
    """Give an object the attributes of another.

    Raises
    ------
    InvalidInput
        If it has others, as after a change of the code.
    """
    if set(names) != state.keys():
        raise InvalidInput(
            f"not the state of a {type(thing).__name__}, which has {', '.join(names) or 'none'}: "
            f"{', '.join(state) or 'nothing'}"
        )
    for name, value in state.items():
        own = getattr(thing, name)
        if isinstance(own, Stateful):
            own.restore(value)
        else:
            setattr(thing, name, value)


def lacks_state(thing: object) -> str:
    """Why an object cannot go on from what it has learned; empty if it can.

    A frozen dataclass says that it keeps nothing.
    """
    if isinstance(thing, Stateful) or _is_frozen(thing):
        return ""
    return (
        f"{type(thing).__name__} does not tell what it keeps from round to round; give it state() "
        "and restore(state), or make it a frozen dataclass if it keeps nothing"
    )


def state_of(thing: object) -> State:
    """The state of an object; empty if it has none."""
    return thing.state() if isinstance(thing, Stateful) else {}


def restore(thing: object, state: State) -> None:
    """Let an object go on from a state; raises `InvalidInput` if it cannot, or is another."""
    if isinstance(thing, Stateful):
        thing.restore(state)
    elif reason := lacks_state(thing):
        raise InvalidInput(reason)
    else:
        restore_attributes(thing, (), state)


def _is_frozen(thing: object) -> bool:
    parameters = getattr(type(thing), "__dataclass_params__", None)
    return is_dataclass(thing) and parameters is not None and bool(parameters.frozen)
