"""Fitted predictors as files: what was fitted, and to what, as JSON that any version can check.

A file holds the parameters, the references, the measurements, and the posterior to the last bit;
loading fits nothing, so that later versions predict from a file what this one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from powerctl.cost_model import Hardware, Signature
from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.fields import Positive, Range, Size, build
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, ModeArrays
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.kernels import Deviations
from powerctl.powertrain.posterior import Posterior
from powerctl.powertrain.prior import Prior
from powerctl.powertrain.reference import contents_of, reference_of
from powerctl.reading import DATA, misread, parse_arrays, parse_json, quoted, read_bytes

FORMAT = "powerctl-predictor"
VERSION = 2  # another one whenever the cost model or the process's kernels are changed
_FITTED_FROM = 2  # older files hold what to fit to, and not what was fitted

_PARAMETERS = ("board", "l4t", "kind", "batch_size")
_Clock = Annotated[int, Range(1, 1e12)]
_LOG = logging.getLogger("powerctl")


def save_predictor(predictor: GaussianPredictor, path: str | Path) -> None:
    """Write a fitted predictor."""
    table = predictor.table_
    content: dict[str, Any] = {name: getattr(predictor, name) for name in _PARAMETERS}
    expected = predictor.expected
    content["expected"] = None if expected is None else asdict(expected)
    content["references"] = []
    for reference in predictor.references_:
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
    content["posterior"] = _content_of(predictor.posterior_)
    whole = {"format": FORMAT, "version": VERSION, "sha256": _digest(content), "content": content}
    write_output(path, json.dumps(whole, indent=1) + "\n")


def load_predictor(path: str | Path) -> GaussianPredictor:
    """Read a predictor that `save_predictor` wrote, as it was.

    A file of version 1 is fitted again, and the log says so.

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
    with misread(f"{path}: damaged, though its checksum is right; fit it again"):
        predictor = _predictor(content, version >= _FITTED_FROM, str(path))
        predictor.predict(predictor.board_.space.thinned(2).arrays)  # of parts that fit together
    if version < _FITTED_FROM:
        _LOG.warning(
            "%s: of version %s, which does not keep what was fitted: it was fitted again; save it "
            "anew",
            *(path, version),
        )
    return predictor


@dataclass(frozen=True)
class _Parameters:
    """What a predictor is made with."""

    board: str
    l4t: str | None
    kind: Literal["train", "infer"]
    batch_size: Size
    expected: Signature | None = None  # files of older versions have none


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


def _predictor(content: dict[str, Any], is_fitted: bool, where: str) -> GaussianPredictor:
    references = [
        reference_of(
            entry["data"],
            None if entry["residual"] is None else base64.b64decode(entry["residual"]),
            where,
        )
        for entry in content["references"]
    ]
    parameters = vars(build(_Parameters, content, where, ignored=None))
    predictor = GaussianPredictor(**parameters, references=references)
    table = _table(build(_Table, content["table"], f"{where}: table"))
    if is_fitted:
        return predictor.take_fitted(table, _posterior(content["posterior"]))
    return predictor.fit(table)


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
