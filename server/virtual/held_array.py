"""Flower's Array without serialising: numbers that stay in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray


class HeldArray(Array):
    """An array that Flower's aggregations take for one that came by message.

    Its bytes are made only if someone asks for them.

    Parameters
    ----------
    values : ndarray
        Shared, not copied.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        self.dtype = str(values.dtype)
        self.shape = tuple(values.shape)
        self.stype = "numpy.ndarray"

    def numpy(self) -> NDArray[Any]:
        """The numbers."""
        return self._values

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The numbers as Flower sends them."""
        return Array.from_numpy_ndarray(np.asarray(self._values)).data


def held(arrays: dict[str, NDArray[Any]]) -> ArrayRecord:
    """A record of held arrays."""
    record = ArrayRecord()
    for name, values in arrays.items():
        record[name] = HeldArray(values)
    return record
