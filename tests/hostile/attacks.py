"""What hostile clients send in place of an offer, or of an update, by name."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from wattfed.strategies.protocol import CONFIG

OFFERS: dict[str, dict[str, Any]] = {
    "modes-without-end": {"modes": [math.inf] * 4},
    "modes-too-many": {"modes": [1] * 400_000, "time_s": [1.0] * 100_000},
    "number-beyond-all": {"client": 10**12},
    "number-beyond-the-partitions": {"client": 999},
    "number-of-another": {"client": 1},
    "number-below-zero": {"client": -1},
    "other-partitions": {"n_clients": 10**7},
    "examples-beyond-all": {"examples": 10**12},
    "examples-none": {"examples": 0},
    "examples-infinite": {"examples": math.inf},
    "examples-below-zero": {"examples": -5},
    "examples-of-a-list": {"examples": [1, 2]},
    "free-work": {"maxn_energy_j": 0.0},
    "half-a-mode": {"maxn_mode": [1, 2]},
    "text-without-end": {"decline": "x" * 10_000},
    "text-that-forges-a-line": {"decline": "hot\nERROR: all is lost"},
    "labels-without-end": {"label_counts": [1.0] * 1_000_000},
    "loss-infinite": {"loss": math.inf},
}
REPORTS: dict[str, dict[str, Any]] = {
    "reports-as-another": {"client": 1},
    "reports-as-nobody": {"client": 10**12},
    "reported-examples-beyond-all": {"examples": 10**12},
    "reported-examples-none": {"examples": 0},
    "reported-examples-below-zero": {"examples": -1},
    "time-not-a-number": {"time_s": math.nan},
    "energy-beyond-all": {"energy_j": 1e300},
    "modes-without-end-in-a-report": {"modes": ["x"] * 100_000},
    "unused-by-itself": {"used": False},
    "late-by-itself": {"staleness": 10**9},
}


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _npz(array: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


def _claiming(shape: str) -> bytes:
    """A header of NumPy's that claims a shape, and four numbers."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(16)


BYTES = {
    "garbage": b"\x00garbage" * 9,
    "nothing": b"",
    "a-header-alone": _npy(np.zeros(4, np.float32))[:-16],
    "a-shape-of-terabytes": _claiming("(10000000000000,)"),
    "a-shape-that-nests": _claiming("(" * 5000 + ")" * 5000),
    "other-shape": _npy(np.zeros(3, np.float32)),
    "texts": _npy(np.array(["1", "2", "3", "4"])),
    "complex": _npy(np.zeros(4, np.complex64)),
    "objects": _npy(np.array([{}, {}, {}, {}], dtype=object)),
    "doubles": _npy(np.zeros(4)),
    "an-npz": _npz(np.zeros(4, np.float32)),
    "beyond-what-can-be-squared": _npy(np.full(4, 1e30, np.float32)),
    "not-finite": _npy(np.array([0, np.nan, np.inf, 0], np.float32)),
}
WEIGHTS: dict[str, Any] = {
    "weight-missing": None,
    "weight-of-a-list": [1.0, 2.0],
    "weight-below-zero": -1e6,
    "weight-zero": 0,
    "weight-infinite": math.inf,
    "weight-not-a-number": math.nan,
    "weight-beyond-all": 10**12,
}


def offered(attack: str, values: dict[str, Any]) -> ConfigRecord:
    """The fields of an offer as an attack changes them."""
    changes = OFFERS.get(attack, {})
    return ConfigRecord({**values, **{f"offer.{name}": v for name, v in changes.items()}})


def trained(attack: str, values: dict[str, Any], weights: Any) -> RecordDict:
    """The content of a trained reply, with the fields of its report, as an attack changes it.

    Its array claims the model's shape and type, whatever its bytes are.
    """
    data = BYTES.get(attack, _npy(weights))
    changes = {f"report.{name}": value for name, value in REPORTS.get(attack, {}).items()}
    metrics = {"num-examples": WEIGHTS.get(attack, 160)}
    return RecordDict(
        {
            "arrays": ArrayRecord({"0": Array("float32", (4,), "numpy.ndarray", data)}),
            "metrics": MetricRecord({k: v for k, v in metrics.items() if v is not None}),
            CONFIG: ConfigRecord({**values, **changes}),
        }
    )
