"""A client's update of the global model, and whether it is sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

from powerctl.errors import InvalidInput
from wattfed.strategies.protocol import WEIGHT, RoundReport
from wattfed.strategies.round.numpy_reply import Numbers, NumpyArray, NumpyReply
from wattfed.strategies.summaries import UpdateSummary, summary_of

_MOST = 1e18  # of a trained number: server optimizers square in single precision
_SURELY = 1e34  # of a sum of squares: none of its numbers is beyond that, however it was rounded
_QUICK = (np.float32, np.float64)  # types whose squares are summed in one go
Reply = Message | NumpyReply


@dataclass(frozen=True, eq=False)
class GlobalModel:
    """The global model from which the clients of a round start.

    Attributes
    ----------
    numbers : dict of ndarray
        All of its arrays, by name.
    parameters : frozenset of str, optional
        Names of its parameters; by default all floating arrays.
    """

    numbers: Numbers
    parameters: frozenset[str] | None = None

    @classmethod
    def of(cls, arrays: ArrayRecord, parameters: frozenset[str] | None = None) -> GlobalModel:
        """The model of Flower's record."""
        return cls({name: array.numpy() for name, array in arrays.items()}, parameters)

    @property
    def arrays(self) -> ArrayRecord:
        """The model as Flower's record."""
        return ArrayRecord({name: Array(array) for name, array in self.numbers.items()})

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

    def summary(self, arrays: Numbers) -> UpdateSummary:
        """The summary of a sound update of this model: of its parameters alone."""
        names = self.parameter_names
        changes = (arrays[name] - self.widened(name) for name in names)
        return summary_of(changes, sum(self.numbers[name].size for name in names))

    def update(self, reply: Reply, metrics: Mapping[str, float]) -> ClientUpdate:
        """A client's update of this model; its metrics are what the server knows of it.

        Raises
        ------
        InvalidInput
            If the arrays are not those of the model, of its types, shapes and finite numbers.
        """
        records: list[Mapping[str, Array | NumpyArray]] = list(reply.content.array_records.values())
        if len(records) != 1 or records[0].keys() != self.numbers.keys():
            raise InvalidInput("its arrays have other names than the model's")
        (record,) = records
        arrays = {name: _values(name, record[name], was) for name, was in self.numbers.items()}
        self.check(arrays)
        return ClientUpdate(NumpyReply(arrays, metrics), self)

    def check(self, arrays: Numbers) -> None:
        """Raise `InvalidInput` for numbers that no update of this model has."""
        for name, was in self.numbers.items():
            _check_like(name, was, arrays[name].dtype, arrays[name].shape)
            _check_sound(name, was, arrays[name])


def weighed(report: RoundReport, most_examples: float) -> RoundReport:
    """A report with no more examples than its client's update may count for."""
    if report.examples <= most_examples:
        return report
    return replace(report, examples=int(most_examples))


def training_metrics(report: RoundReport) -> dict[str, float]:
    """What an aggregation reads beside an update's arrays, its weight first."""
    return {WEIGHT: report.examples, "train-loss": report.loss}


class ClientUpdate:
    """A sound update, and where it started from."""

    def __init__(self, reply: Reply, base: GlobalModel) -> None:
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

    def summary(self) -> UpdateSummary:
        """How far it changes the model that it started from, and where to."""
        return self.base.summary(self.numbers)

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


def _values(name: str, array: Array | NumpyArray, model: NDArray[Any]) -> NDArray[Any]:
    """The numbers of an array, if it is of the type and shape of one of the model's.

    Nothing is made by what an array says of itself, before that is seen to be as in the model.
    """
    return array.values if isinstance(array, NumpyArray) else _of_npy(name, array.data, model)


def _of_npy(name: str, data: bytes, model: NDArray[Any]) -> NDArray[Any]:
    """The array in NumPy's own format, which Flower sends."""
    file = BytesIO(data)
    try:
        read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
        shape, in_columns, dtype = read[read_magic(file)](file)
    except Exception:  # whatever the bytes of others make of NumPy's reader
        raise InvalidInput(f"{name!r} is no array in NumPy's format") from None
    _check_like(name, model, dtype, shape)
    start = file.tell()
    if len(data) - start != model.nbytes:
        raise InvalidInput(f"{name!r} has {len(data) - start} bytes, the model's {model.nbytes}")
    values = np.frombuffer(data, dtype, offset=start)
    return values.reshape(shape, order="F" if in_columns else "C").copy()


def _check_like(name: str, model: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    if dtype != model.dtype or shape != model.shape:
        raise InvalidInput(
            f"{name!r} is {dtype!s:.30} of shape {shape!s:.60}, the model's {model.dtype} of "
            f"shape {model.shape}"
        )


def _check_sound(name: str, model: NDArray[Any], values: NDArray[Any]) -> None:
    if values.dtype.kind in "biu":
        return
    if values.dtype in _QUICK and np.vdot(values, values) <= _SURELY:  # false for NaN
        return
    if np.abs(values).max(initial=0) <= _MOST:  # false for NaN
        return
    if not np.isfinite(values).all():
        raise InvalidInput(f"{name!r} is not finite")
    if ((np.abs(values) > _MOST) & (values != model)).any():
        raise InvalidInput(f"{name!r} has numbers beyond {_MOST:g}")
