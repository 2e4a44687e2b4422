"""Replies that hold their numbers: what Flower's aggregations take, without serialising."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

Numbers = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class NumpyArray:
    """An array by its numbers, in place of Flower's Array of bytes."""

    values: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array it holds."""
        return self.values.shape

    def numpy(self) -> NDArray[Any]:
        """The numbers; shared, not copied."""
        return self.values


class NumpyArrays(dict[str, NumpyArray]):
    """The arrays of a model by name, in place of Flower's ArrayRecord."""

    def to_numpy_ndarrays(self, *, keep_input: bool = True) -> list[NDArray[Any]]:
        """The numbers of all; shared, and kept whatever is asked."""
        return [array.values for array in self.values()]


class NumpyContent(dict[str, Any]):
    """The content of a reply, in place of Flower's RecordDict."""

    @property
    def array_records(self) -> dict[str, NumpyArrays]:
        """The one record of arrays."""
        return {"arrays": self["arrays"]}

    @property
    def metric_records(self) -> dict[str, dict[str, float]]:
        """The one record of metrics."""
        return {"metrics": self["metrics"]}


class NumpyReply:
    """In place of a Message with a client's arrays and metrics.

    Parameters
    ----------
    arrays : dict of ndarray
        By the names of the model's.
    metrics : mapping
        With the weight that the aggregation reads.
    """

    def __init__(self, arrays: Numbers, metrics: Mapping[str, float]) -> None:
        held = NumpyArrays({name: NumpyArray(values) for name, values in arrays.items()})
        self.content = NumpyContent(arrays=held, metrics=dict(metrics))

    def has_error(self) -> bool:
        """It is of a client that has trained."""
        return False
