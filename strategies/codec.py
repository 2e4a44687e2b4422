"""The records of a round in and out of a message's ConfigRecord.

Telemetry travels in a ConfigRecord because Flower checks the keys of MetricRecords across clients:
a board without a sensor would otherwise end the aggregation of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from powerctl.errors import InvalidInput
from powerctl.modes import PowerMode
from powerctl.plans import Front, Held
from wattfed.strategies.protocol import EvaluationReport, RoundAssignment, RoundOffer, RoundReport

_PREFIX: dict[type, str] = {
    RoundOffer: "offer.",
    RoundAssignment: "assignment.",
    RoundReport: "report.",
    EvaluationReport: "evaluation.",
}
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "bool": (bool,),
}
_UNBOUNDED = {
    *("power_limit_w", "allowance_j", "deadline_s", "energy_cap_j", "battery_j"),
    *("battery_capacity_j", "available_s", "inference_budget_s", "budget_left_j"),
}
Record = TypeVar("Record", RoundAssignment, RoundReport, RoundOffer, EvaluationReport)


def encode(record: Record) -> dict[str, Any]:
    """What a ConfigRecord holds of a record: its fields, after a prefix of its kind."""
    values: dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Held):
            values |= {f"{item.name}_{name}": each for name, each in value._asdict().items()}
            values[f"{item.name}_mode"] = list(value.mode.values)
        elif isinstance(value, Front):
            values["modes"] = [axis for mode in value.modes for axis in mode.values]
            values["time_s"] = [float(t) for t in value.time_s]
            values["energy_j"] = [float(e) for e in value.energy_j]
        else:
            values[item.name] = list(value) if isinstance(value, tuple) else value
    return {_PREFIX[type(record)] + name: value for name, value in values.items()}


def decode(kind: type[Record], config: Mapping[str, Any]) -> Record:
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
        if kind is RoundOffer:
            axes = np.array(values["modes"], dtype=np.int64).reshape(-1, 4).tolist()
            for name in ("maxn", "preset"):
                mode, time_s, energy_j = (values[f"{name}_{part}"] for part in Held._fields)
                values[name] = Held(PowerMode(*mode), time_s, energy_j)
            values["front"] = Front(
                modes=tuple(PowerMode(*mode) for mode in axes),
                time_s=np.array(values["time_s"], dtype=np.float64),
                energy_j=np.array(values["energy_j"], dtype=np.float64),
            )
        wanted = {f.name: values[f.name] for f in fields(kind)}
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidInput(f"not a {kind.__name__}: {error}") from None
    lists = {key: tuple(value) for key, value in wanted.items() if isinstance(value, list)}
    decoded = kind(**{**wanted, **lists})
    if wrong := _wrong(decoded):
        raise InvalidInput(f"not a {kind.__name__}: {wrong}")
    return decoded


def _wrong(record: Record) -> str:
    """What in a record cannot be; empty if all can."""
    for item in fields(record):
        value = getattr(record, item.name)
        kind = _KINDS.get(str(item.type))
        if kind is not None and type(value) not in kind:
            return f"{item.name} is {value!r}"
        if isinstance(value, int | float) and not _can_be(item.name, value):
            return f"{item.name} is {value}"
    if isinstance(record, RoundReport) and record.minibatches:
        if not (record.time_s and record.energy_j and record.examples):
            return f"{record.minibatches} minibatches for nothing"
        if record.minibatches > record.planned_minibatches:
            return f"{record.minibatches} minibatches of {record.planned_minibatches} planned"
    if isinstance(record, RoundOffer):
        front = record.front
        costs = np.concatenate([front.time_s, front.energy_j, record.maxn[1:], record.preset[1:]])
        if not len(front.modes) == len(front.time_s) == len(front.energy_j):
            return "its front has not one time and energy for each mode"
        if not (front.modes or record.decline):
            return "it offers no mode, and does not decline"
        if not (np.isfinite(costs).all() and (costs > 0).all()):
            return "its work costs nothing, or no number"
        if not (record.minibatches or record.decline):
            return "it offers no work, and does not decline"
        if not np.isfinite(np.array(record.label_counts, dtype=float)).all():
            return f"label_counts are {record.label_counts}"
    return ""


def _can_be(name: str, value: float) -> bool:
    if name == "loss":
        return not math.isinf(value)  # NaN before it has trained; below 0 as the task has it
    if name == "budget_left_j":
        return not math.isnan(value)  # a device that is blind to its budget overdraws it
    return value >= 0 and (name in _UNBOUNDED or math.isfinite(value))
