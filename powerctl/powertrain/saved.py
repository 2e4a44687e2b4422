"""Fitted predictors as files: what was fitted, and to what, as JSON that any version can check.

A file holds the parameters, the references, the measurements, and the posterior to the last bit;
loading fits nothing, so that later versions predict from a file what this one does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from powerctl.bottleneck import Hardware, Signature
from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.modes import AXES, ModeArrays
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.posterior import Posterior
from powerctl.powertrain.prior import Prior
from powerctl.powertrain.process import Deviations
from powerctl.powertrain.reference import contents_of, reference_of

FORMAT = "powerctl-predictor"
VERSION = 2  # another one whenever the cost model or the process's kernels are changed
_FITTED_FROM = 2  # older files hold what to fit to, and not what was fitted

_PARAMETERS = ("board", "l4t", "kind", "batch_size")
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
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidInput(f"{path}: not a predictor, or damaged; fit it again") from None
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise InvalidInput(f"{path}: not a predictor; make one with: powerctl fit")
    version = whole.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise InvalidInput(
            f"{path}: of version {version}, this powerctl reads 1 to {VERSION}; upgrade it"
        )
    content = whole.get("content")
    if not isinstance(content, dict) or whole.get("sha256") != _digest(content):
        raise InvalidInput(f"{path}: damaged, its content does not fit its checksum; fit it again")
    references = [
        reference_of(
            entry["data"],
            None if entry["residual"] is None else base64.b64decode(entry["residual"]),
            str(path),
        )
        for entry in content["references"]
    ]
    expected = content.get("expected")  # files of older versions have none
    predictor = GaussianPredictor(
        **{name: content[name] for name in _PARAMETERS},
        references=references,
        expected=None if expected is None else Signature(**expected),
    )
    table = _table(content["table"])
    if version >= _FITTED_FROM:
        return predictor.take_fitted(table, _posterior(content["posterior"]))
    _LOG.warning(
        "%s: of version %s, which does not keep what was fitted: it is fitted again; save it anew",
        *(path, version),
    )
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
    with np.load(BytesIO(base64.b64decode(content["arrays"])), allow_pickle=False) as file:
        arrays = dict(file)
    prior = Prior(
        Hardware(**content["hardware"]),
        Signature(**content["signature"]),
        tuple(content["names"]),
        arrays.pop("mean"),
        arrays.pop("covariance"),
    )
    return Posterior.of_arrays(prior, Deviations(**content["deviations"]), arrays)


def _packed(arrays: dict[str, Any]) -> str:
    """Arrays as text, to the last bit: base64 of an ``.npz`` archive."""
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def _table(columns: dict[str, Any]) -> MeasurementTable:
    sizes = columns["batch_size"]
    return MeasurementTable(
        modes=ModeArrays(*(np.array(columns[name], dtype=np.int64) for name in AXES)),
        batch_size=None if sizes is None else np.array(sizes, dtype=np.int64),
        time_s=np.array(columns["time_s"], dtype=np.float64),
        power_w=np.array(columns["power_w"], dtype=np.float64),
        source=columns["source"],
    )


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
