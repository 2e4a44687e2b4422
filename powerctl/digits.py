"""The handwritten digits that ship with scikit-learn, read without loading scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from powerctl.errors import PowerctlError
from powerctl.modes import FloatArray, IntArray

_SIDE = 8


def load_digits() -> tuple[FloatArray, IntArray]:
    """Read 1,797 images and their labels.

    scikit-learn's own function gives the same arrays, but importing it takes over a second of
    processor time, in each process that a SuperNode starts.

    Returns
    -------
    images : float array, shape (1797, 8, 8)
        From 0 to 16.
    labels : int array, shape (1797,)
        From 0 to 9.

    Raises
    ------
    PowerctlError
        If scikit-learn, or this file of it, is not here.
    """
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise PowerctlError("the digits are a file of scikit-learn, which is not installed")
    file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise PowerctlError(f"this scikit-learn has no digits: {file} is not there")
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, _SIDE, _SIDE), table[:, -1].astype(np.int64)
