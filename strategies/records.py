"""The records both sides exchange: powerctl's round objects in and out of Flower's ConfigRecord.

Telemetry travels in a ConfigRecord because Flower checks the keys of MetricRecords across clients:
a board without a sensor would otherwise end the aggregation of all.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
from flwr.app import ConfigRecord

from powerctl.errors import InvalidInput
from powerctl.modes import PowerMode
from powerctl.rounds import Front, Held, RoundAssignment, RoundOffer, RoundReport

OFFER, ASSIGNMENT, REPORT, CONFIG = "offer", "assignment", "report", "config"
CLOCK = "clock-s"  # in the CONFIG of queries and assignments: the fleet's virtual clock
RUN = "run-id"  # there too: the Flower run in which the federation began, which it may outlive
Record = TypeVar("Record", RoundAssignment, RoundReport, RoundOffer)


def encode(record: RoundOffer | RoundAssignment | RoundReport) -> ConfigRecord:
    """A record as a flat ConfigRecord."""
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
    return ConfigRecord(values)


def decode(kind: type[Record], record: ConfigRecord) -> Record:
    """The record of a kind; raises `InvalidInput` if fields are missing."""
    values: dict[str, Any] = dict(record)
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
    return kind(**{**wanted, **lists})
