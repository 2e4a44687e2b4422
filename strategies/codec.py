"""The records of a round in and out of a message's ConfigRecord.

Telemetry travels in a ConfigRecord because Flower checks the keys of MetricRecords across clients:
a board without a sensor would otherwise end the aggregation of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.fields import checked
from powerctl.fulcrum.plans import FixedMode, Front
from powerctl.modes import PowerMode
from wattfed.strategies.protocol import EvaluationReport, RoundAssignment, RoundOffer, RoundReport
from wattfed.strategies.ranges import Axes, Cost, Costs

_PREFIX: dict[type, str] = {
    RoundOffer: "offer.",
    RoundAssignment: "assignment.",
    RoundReport: "report.",
    EvaluationReport: "evaluation.",
}
_HINTS = {kind: get_type_hints(kind, include_extras=True) for kind in _PREFIX}
_COSTS = ("time_s", "energy_j")
Record = TypeVar("Record", RoundAssignment, RoundReport, RoundOffer, EvaluationReport)


def encode_record(record: Record) -> dict[str, Any]:
    """What a ConfigRecord holds of a record: its fields, after a prefix of its kind."""
    values: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, FixedMode):
            values |= {f"{item.name}_{name}": each for name, each in value._asdict().items()}
            values[f"{item.name}_mode"] = list(value.mode.values)
        elif isinstance(value, Front):
            values["modes"] = [axis for mode in value.modes for axis in mode.values]
            values["time_s"] = [float(t) for t in value.time_s]
            values["energy_j"] = [float(e) for e in value.energy_j]
        else:
            values[item.name] = list(value) if isinstance(value, tuple) else value
    return {_PREFIX[type(record)] + name: value for name, value in values.items()}


def decode_record(kind: type[Record], config: Mapping[str, Any]) -> Record:
    """The record of a kind that a ConfigRecord holds.

    It comes from another host, and whoever uses it must not stumble over what it says.

    Raises
    ------
    InvalidInput
        If there is none, or it says what cannot be.
    """
    prefix = _PREFIX[kind]
    values = {key[len(prefix) :]: one for key, one in config.items() if key.startswith(prefix)}
    try:
        decoded = kind(**{name: _read(values, name, hint) for name, hint in _HINTS[kind].items()})
        _check(decoded)
    except InvalidInput as error:
        raise InvalidInput(f"not a {kind.__name__}: {error}") from None
    return decoded


def _read(values: Mapping[str, Any], name: str, hint: Any) -> Any:
    """A field of a record; raises `InvalidInput` if it is missing, or is what it cannot be."""
    if hint is FixedMode:
        mode = _modes(values, f"{name}_mode")
        if len(mode) != 1:
            raise InvalidInput(f"{name}_mode is {len(mode)} modes and must be one")
        costs = (_read(values, f"{name}_{part}", Cost) for part in _COSTS)
        return FixedMode(mode[0], *costs)
    if hint is Front:
        modes = _modes(values, "modes")
        time_s, energy_j = (np.array(_read(values, key, Costs), float) for key in _COSTS)
        if not len(modes) == len(time_s) == len(energy_j):
            raise InvalidInput("its front has not one time and energy for each mode")
        return Front(modes, time_s, energy_j)
    if name not in values:
        raise InvalidInput(f"{name} is missing")
    return checked(name, values[name], hint)


def _modes(values: Mapping[str, Any], name: str) -> tuple[PowerMode, ...]:
    axes = _read(values, name, Axes)
    if len(axes) % 4:
        raise InvalidInput(f"{name} has {len(axes)} numbers and must have four for each mode")
    return tuple(PowerMode(*axes[i : i + 4]) for i in range(0, len(axes), 4))


def _check(record: Record) -> None:
    """Raise `InvalidInput` for fields that do not go together."""
    if isinstance(record, RoundReport) and (record.staleness or not record.used):
        raise InvalidInput("staleness and used are the server's to say")
    if isinstance(record, RoundReport) and record.minibatches:
        if not (record.time_s and record.energy_j and record.examples):
            raise InvalidInput(f"{record.minibatches} minibatches for nothing")
        if record.minibatches > record.planned_minibatches:
            raise InvalidInput(
                f"{record.minibatches} minibatches of {record.planned_minibatches} planned"
            )
    if isinstance(record, RoundOffer):
        if record.client >= record.n_clients:
            raise InvalidInput(f"client {record.client} is not one of {record.n_clients}")
        if not (record.front.modes or record.decline):
            raise InvalidInput("it offers no mode, and does not decline")
        if record.minibatches and not record.examples:
            raise InvalidInput(f"{record.minibatches} minibatches of no examples")
        if not (record.minibatches or record.decline):
            raise InvalidInput("it offers no work, and does not decline")
