"""Inference load: the requests that clients serve, over the hours of the day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from powerctl.errors import InvalidInput
from powerctl.modes import FloatArray, IntArray
from powerctl.workload import load_workload
from wattfed.client.fleet.columns import FleetColumns, check_keys, number_column
from wattfed.client.fleet.hours import hour_of_day, shape_of_day


@dataclass(frozen=True, eq=False)
class InferenceLoads(FleetColumns):
    """What clients serve; arrays of shape (n,).

    Attributes
    ----------
    rate_hz : FloatArray
        Requests in a second in the busiest hour; 0 for who serves nothing.
    latency_s : FloatArray
        Budget of a request, from its arrival to its answer.
    workload : array of str
        What answers them.
    shape : FloatArray, shape (n, 24)
        Factor of the rate in each hour.
    """

    workload: NDArray[np.str_]
    shape: FloatArray
    rate_hz: FloatArray = number_column(0.0, least=0.0)
    latency_s: FloatArray = number_column(np.inf, above=0.0)

    @classmethod
    def read(cls, table: Mapping[str, Any], count: int) -> InferenceLoads:
        """Of a group of clients; `shape` is a name of ``shapes.toml`` or 24 numbers."""
        check_keys(table, {"rate_hz", "latency_s", "workload", "shape"})
        if table and not {"rate_hz", "latency_s"} <= set(table):
            raise InvalidInput("inference needs rate_hz and latency_s")
        numbers = cls.numbers(table, count)
        workload = table.get("workload", "mobilenetv3-infer")
        if load_workload(workload).kind != "infer":
            raise InvalidInput(f"{workload} is no inference workload")
        shape = shape_of_day(table.get("shape", "flat"))
        return cls(
            **numbers,
            workload=np.broadcast_to(np.array(workload), count),
            shape=np.broadcast_to(shape, (count, len(shape))),
        )

    def rate_at_hz(self, rows: IntArray, clock_s: float) -> FloatArray:
        """Requests in a second at a time; `clock_s` is 0 at midnight.

        Rounded up to two digits, so that many clients have the same to choose from.
        """
        rate_hz = self.rate_hz[rows] * self.shape[rows, hour_of_day(clock_s)]
        step_hz = 10.0 ** np.floor(np.log10(np.maximum(rate_hz, 1e-6)) - 1)
        return np.asarray(np.ceil(rate_hz / step_hz - 1e-9) * step_hz)
