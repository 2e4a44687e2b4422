"""Files of fitted predictors: what was fitted, and to what, as JSON that any version can check.

A file holds the parameters, the references, the measurements, and the posterior to the last bit;
loading fits nothing, so that later versions predict from a file what this one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from powerctl.cost_model import Hardware, Signature
from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.fields import Positive, Range, Size, build
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, ModeArrays
from powerctl.powertrain.kernels import Deviations
from powerctl.powertrain.posterior import Posterior
from powerctl.powertrain.prior import Prior
from powerctl.powertrain.reference import Reference, contents_of, reference_of
from powerctl.reading import DATA, misread, parse_arrays, parse_json, quoted, read_bytes

FORMAT = "powerctl-predictor"
VERSION = 2  # another one whenever the cost model or the process's kernels are changed
_FITTED_FROM = 2  # older files hold what to fit to, and not what was fitted

_Clock = Annotated[int, Range(1, 1e12)]


@dataclass(frozen=True)
class Parameters:
    """What a predictor is made with, its references apart."""

    board: str
    l4t: str | None
    kind: Literal["train", "infer"]
    batch_size: Size
    expected: Signature | None = None  # files of older versions have none


class SavedPredictor(NamedTuple):
    """What a file holds of a predictor.

    Attributes
    ----------
    parameters : Parameters
    references : sequence of Reference
        All that it started from.
    table : MeasurementTable
        What it was fitted to.
    posterior : Posterior or None
        What was fitted; None of a file of version 1, which did not keep it.
    """

    parameters: Parameters
    references: Sequence[Reference]
    table: MeasurementTable
    posterior: Posterior | None


def write_predictor(saved: SavedPredictor, path: str | Path) -> None:
    """Write a fitted predictor for `read_predictor`."""
    table, posterior = saved.table, saved.posterior
    assert posterior is not None
    content: dict[str, Any] = asdict(saved.parameters)
    content["references"] = []
    for reference in saved.references:
        data, packed = contents_of(reference, exact=True)
        coded = None if packed is None else base64.b64encode(packed).decode()
        content["references"].append({"data": data, "residual": coded})
    content["table"] = {
        "source": table.source,
        **{name: axis.tolist() for name, axis in zip(AXES, table.modes, strict=True)},
        "batch_size": None if table.batch_size is None else table.batch_size.tolist(),
        "time_s": table.time_s.tolist(),
        "power_w": table.power_w.tolist(),
    }
    content["posterior"] = _content_of(posterior)
    whole = {"format": FORMAT, "version": VERSION, "sha256": _digest(content), "content": content}
    write_output(path, json.dumps(whole, indent=1) + "\n")


def read_predictor(path: str | Path) -> SavedPredictor:
    """Read what `write_predictor` wrote, to the last bit.

    Raises
    ------
    InvalidInput
        If the file cannot be read, is no predictor, is damaged, or of a newer version.
    """
    where = f"{path}: not a predictor, or damaged; fit it again"
    whole = parse_json(read_bytes(path, DATA), where)
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise InvalidInput(f"{path}: not a predictor; make one with: powerctl fit")
    version = whole.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InvalidInput(
            f"{path}: of version {quoted(version)}, this powerctl reads 1 to {VERSION}; upgrade it"
        )
    content = whole.get("content")
    if not isinstance(content, dict) or whole.get("sha256") != _digest(content):
        raise InvalidInput(f"{path}: damaged, its content does not fit its checksum; fit it again")
    with damaged(path):
        residuals = [entry["residual"] for entry in content["references"]]
        return SavedPredictor(
            build(Parameters, content, str(path), ignored=None),
            [
                reference_of(
                    entry["data"], None if coded is None else base64.b64decode(coded), str(path)
                )
                for entry, coded in zip(content["references"], residuals, strict=True)
            ],
            _table(build(_Table, content["table"], f"{path}: table")),
            _posterior(content["posterior"]) if version >= _FITTED_FROM else None,
        )


def damaged(path: str | Path) -> AbstractContextManager[None]:
    """Where parts that do not fit together are called damage of a file, as `misread` does."""
    return misread(f"{path}: damaged, though its checksum is right; fit it again")


@dataclass(frozen=True)
class _Table:
    """The columns of the table that it was fitted to."""

    source: str
    cores: tuple[Size, ...]
    cpu_khz: tuple[_Clock, ...]
    gpu_hz: tuple[_Clock, ...]
    mem_hz: tuple[_Clock, ...]
    batch_size: tuple[Size, ...] | None
    time_s: tuple[Positive, ...]
    power_w: tuple[Positive, ...]


def _content_of(posterior: Posterior) -> dict[str, Any]:
    prior = posterior.prior
    return {
        "hardware": asdict(prior.hardware),
        "signature": asdict(prior.signature),
        "names": prior.names,
        "deviations": asdict(posterior.deviations),
        "arrays": _packed(
            {"mean": prior.mean, "covariance": prior.covariance, **posterior.arrays()}
        ),
    }


def _posterior(content: dict[str, Any]) -> Posterior:
    arrays = parse_arrays(base64.b64decode(content["arrays"]), "its arrays")
    prior = Prior(
        build(Hardware, content["hardware"], "hardware"),
        build(Signature, content["signature"], "signature"),
        tuple(content["names"]),
        arrays.pop("mean"),
        arrays.pop("covariance"),
    )
    deviations = build(Deviations, content["deviations"], "deviations")
    return Posterior.of_arrays(prior, deviations, arrays)


def _packed(arrays: dict[str, Any]) -> str:
    """Arrays as text, to the last bit: base64 of an ``.npz`` archive."""
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def _table(columns: _Table) -> MeasurementTable:
    sizes = columns.batch_size
    lengths = {len(column) for column in vars(columns).values() if isinstance(column, tuple)}
    if len(lengths) != 1:
        raise InvalidInput(f"columns of {lengths} rows")
    return MeasurementTable(
        modes=ModeArrays(*(np.array(getattr(columns, name), dtype=np.int64) for name in AXES)),
        batch_size=None if sizes is None else np.array(sizes, dtype=np.int64),
        time_s=np.array(columns.time_s, dtype=np.float64),
        power_w=np.array(columns.power_w, dtype=np.float64),
        source=columns.source,
    )


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
