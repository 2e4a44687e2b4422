"""Clients' updates: whether one is sound, and how late ones join an aggregation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from powerctl.errors import InvalidInput
from wattfed.strategies.protocol import RoundReport
from wattfed.strategies.round.in_flight import Flight
from wattfed.strategies.round.numpy_reply import HeldArray, HeldReply, Numbers
from wattfed.strategies.round_policy import staleness_weights
from wattfed.strategies.state import State

_WEIGHT = "num-examples"  # by which Flower's strategies weigh
_MOST = 1e18  # of a trained number: server optimizers square in single precision
Reply = Message | HeldReply


@dataclass(frozen=True, eq=False)
class Base:
    """The global model from which the clients of a round start.

    Attributes
    ----------
    arrays : ArrayRecord
        All of it.
    parameters : frozenset of str, optional
        Names of its parameters; by default all floating arrays.
    """

    arrays: ArrayRecord
    parameters: frozenset[str] | None = None

    @cached_property
    def numbers(self) -> Numbers:
        """The model's arrays."""
        return {name: array.numpy() for name, array in self.arrays.items()}

    @cached_property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of its parameters, in its order; what cannot be averaged is none."""
        named = self.numbers if self.parameters is None else self.parameters
        return tuple(name for name in self._floating if name in named)

    @cached_property
    def floating_buffers(self) -> tuple[str, ...]:
        """Names of what else is floating, such as running means."""
        return tuple(name for name in self._floating if name not in self.parameter_names)

    @cached_property
    def other_buffers(self) -> tuple[str, ...]:
        """Names of its integer and Boolean arrays, such as counters, indices and masks."""
        return tuple(name for name in self.numbers if name not in self._floating)

    @cached_property
    def _floating(self) -> dict[str, None]:
        kinds = {name: array.dtype for name, array in self.numbers.items()}
        return {name: None for name, kind in kinds.items() if np.issubdtype(kind, np.inexact)}

    def widened(self, name: str) -> NDArray[Any]:
        """An array as it is computed with: half precision would lose small changes."""
        array = self.numbers[name]
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def update(self, reply: Reply, metrics: Mapping[str, float]) -> Update:
        """A client's update of this model; its metrics are what the server knows of it.

        Raises
        ------
        InvalidInput
            If the arrays are not those of the model, of its types, shapes and finite numbers.
        """
        records: list[Mapping[str, Array | HeldArray]] = list(reply.content.array_records.values())
        if len(records) != 1 or records[0].keys() != self.numbers.keys():
            raise InvalidInput("its arrays have other names than the model's")
        (record,) = records
        arrays = {name: _values(name, record[name], was) for name, was in self.numbers.items()}
        return Update(HeldReply(arrays, metrics), self)


class Update:
    """A sound update, and where it started from."""

    def __init__(self, reply: Reply, base: Base) -> None:
        self.reply = reply
        self.base = base

    @property
    def numbers(self) -> Numbers:
        """Trained arrays, in the model's order and as they are computed with."""
        (record,) = self.reply.content.array_records.values()
        return {
            name: record[name].numpy().astype(self.base.widened(name).dtype, copy=False)
            for name in self.base.numbers
        }

    @property
    def metrics(self) -> dict[str, float]:
        """What came with them, the weight among it."""
        (metrics,) = self.reply.content.metric_records.values()
        return cast(dict[str, float], dict(metrics))

    def change(self) -> Numbers:
        """Trained arrays less those that training began with; of Booleans, which changed.

        Floating buffers are left out: they tell of the client's data, wherever it began.
        """
        return {
            name: value ^ began if value.dtype == np.bool_ else value - began
            for name, value in self.numbers.items()
            if name not in self.base.floating_buffers
            for began in [self.base.widened(name)]
        }


def replies_to_aggregate(
    arrived: Sequence[Flight[Update]], base: Base, late_rule: str
) -> list[Reply]:
    """The replies of updates that have come, as an aggregation takes them.

    Where all are of this round, they are the replies. A late one brings its change to the present
    model, and its examples count by the rule for late updates.

    Parameters
    ----------
    arrived : sequence of Flight
        Those without an update are left out.
    base : Base
        The present global model.
    late_rule : str
        Of `wattfed.strategies.round_policy`.
    """
    updates = [(flight.update, flight.report) for flight in arrived if flight.update is not None]
    staleness = np.array([report.staleness for _, report in updates], dtype=np.int64)
    if not staleness.any():
        return [update.reply for update, _ in updates]
    changes = [update.change() for update, _ in updates]
    deviation = _deviations(changes, base.parameter_names, staleness)
    weights = staleness_weights(staleness, deviation, late_rule)
    return [
        _moved(update, change, base, float(weight)) if late else update.reply
        for (update, _), change, late, weight in zip(
            updates, changes, staleness > 0, weights / weights.max(), strict=True
        )
    ]


def state_of_flights(flights: Sequence[Flight[Update]]) -> State:
    """Clients that train and their updates, with the models from which they started, once each."""
    return {
        "bases": {str(f.started): f.update.base.arrays for f in flights if f.update is not None},
        "flights": [
            {
                "report": dict(vars(flight.report)),
                "started": flight.started,
                "left_s": flight.left_s,
                "arrays": None if flight.update is None else flight.update.numbers,
                "metrics": None if flight.update is None else flight.update.metrics,
            }
            for flight in flights
        ],
    }


def flights_of(state: State, parameters: frozenset[str] | None) -> list[Flight[Update]]:
    """The flights of such a state, of a model with these parameters."""
    bases = {started: Base(arrays, parameters) for started, arrays in state["bases"].items()}
    flights = []
    for one in state["flights"]:
        update = None
        if one["arrays"] is not None:
            reply = HeldReply(one["arrays"], one["metrics"])
            update = Update(reply, bases[str(one["started"])])
        report = RoundReport(**one["report"])
        flights.append(Flight(report, update, one["started"], one["left_s"]))
    return flights


def _deviations(
    changes: Sequence[Numbers], parameters: Sequence[str], staleness: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far each late change, joining the n fresh ones, would move their average, squared."""
    if not parameters:
        return np.zeros(len(changes))
    flat = np.array([np.concatenate([c[name].ravel() for name in parameters]) for c in changes])
    fresh = flat[staleness == 0]
    centre = fresh.mean(axis=0) if len(fresh) else np.zeros(flat.shape[1])
    return np.asarray((((flat - centre) / (len(fresh) + 1)) ** 2).sum(axis=1), dtype=np.float64)


def _moved(update: Update, change: Numbers, base: Base, weight: float) -> HeldReply:
    """A reply with its change brought to another model, and its examples weighed."""
    moved = {
        name: began ^ delta if delta.dtype == np.bool_ else began + delta
        for name, delta in change.items()
        for began in [base.widened(name)]
    }
    metrics = update.metrics
    return HeldReply({**update.numbers, **moved}, {**metrics, _WEIGHT: metrics[_WEIGHT] * weight})


def _values(name: str, array: Array | HeldArray, model: NDArray[Any]) -> NDArray[Any]:
    """The numbers of an array that can take the place of one of the model's.

    Nothing is made by what an array says of itself, before that is seen to be as in the model.
    """
    if isinstance(array, HeldArray):
        values = array.values
        _check_like(model, name, values.dtype, values.shape)
    else:
        values = _of_npy(name, array.data, model)
    if not np.isfinite(values).all():
        raise InvalidInput(f"{name!r} is not finite")
    if values.dtype.kind == "f" and ((np.abs(values) > _MOST) & (values != model)).any():
        raise InvalidInput(f"{name!r} has numbers beyond {_MOST:g}")
    return values


def _of_npy(name: str, data: bytes, model: NDArray[Any]) -> NDArray[Any]:
    """The array in NumPy's own format, which Flower sends."""
    file = BytesIO(data)
    try:
        read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
        shape, in_columns, dtype = read[read_magic(file)](file)
    except Exception:  # whatever the bytes of others make of NumPy's reader
        raise InvalidInput(f"{name!r} is no array in NumPy's format") from None
    _check_like(model, name, dtype, shape)
    start = file.tell()
    if len(data) - start != model.nbytes:
        raise InvalidInput(f"{name!r} has {len(data) - start} bytes, the model's {model.nbytes}")
    values = np.frombuffer(data, dtype, offset=start)
    return values.reshape(shape, order="F" if in_columns else "C").copy()


def _check_like(model: NDArray[Any], name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    if dtype != model.dtype or shape != model.shape:
        raise InvalidInput(
            f"{name!r} is {dtype!s:.30} of shape {shape!s:.60}, the model's {model.dtype} of "
            f"shape {model.shape}"
        )
