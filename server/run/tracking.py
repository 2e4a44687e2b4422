"""Writes a run's rounds to an experiment tracker as well: TensorBoard, MLflow, or one of others."""

from __future__ import annotations

import math
import os
import re
import time
from importlib import import_module
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common.logger import log

from powerctl.errors import InvalidInput
from powerctl.plugins import Kind
from wattfed.server.run.history import RoundRow
from wattfed.strategies.run_config import RunConfig

_UNNAMEABLE = re.compile(r"[^\w\-. /]")  # in names of MLflow's metrics


class Tracker(Protocol):
    """Takes the rounds of a run as they end; it touches nothing before the first one."""

    def write(self, row: RoundRow) -> None:
        """Take a round: the first is that of the initial model, or the one a run goes on after."""
        ...

    def close(self, is_finished: bool) -> None:
        """Take no more rounds; tells whether the run came to its end."""
        ...


class NoTracker:
    """The tracker of a run that asks for none."""

    def write(self, row: RoundRow) -> None:
        """Write nothing, as nobody asked."""

    def close(self, is_finished: bool) -> None:
        """Do nothing, as nothing is open."""


class TensorBoard:
    """Writes rounds as scalars that TensorBoard draws, by PyTorch's own writer.

    Parameters
    ----------
    config : RunConfig
        Of the run; stands beside the scalars as a text.
    folder : Path
        Of the run's results.
    place : str
        A folder in which each run has one of its name; empty: ``tensorboard`` in the results.
    """

    def __init__(self, config: RunConfig, folder: Path, place: str = "") -> None:
        self._library = _library("torch.utils.tensorboard", "tensorboard")
        self._config = config
        self._folder = Path(place) / config.run_name if place else folder / "tensorboard"
        self._writer: Any = None

    def write(self, row: RoundRow) -> None:
        """Take a round; events of later ones, which a run that goes on repeats, are hidden."""
        if self._writer is None:
            self._writer = self._library.SummaryWriter(str(self._folder), purge_step=row.round)
            lines = [f"    {key} = {value}" for key, value in self._config.to_flower().items()]
            self._writer.add_text("configuration", "\n".join(lines), row.round)
        for name, value in scalars_of(row).items():
            self._writer.add_scalar(name, value, row.round)
        self._writer.flush()

    def close(self, is_finished: bool) -> None:
        """Close the file of its events."""
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """Writes a run as one of MLflow's: its configuration as parameters, rounds as metrics.

    Parameters
    ----------
    config : RunConfig
        Of the run, whose name MLflow's run has.
    folder : Path
        Of the run's results; there ``mlflow.txt`` tells a run that goes on which of MLflow's it is.
    place : str
        A tracking URI; empty: as MLflow's own settings say.
    """

    def __init__(self, config: RunConfig, folder: Path, place: str = "") -> None:
        # by itself MLflow tries for minutes to reach a server that is not there
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        self._library = _library("mlflow", "mlflow")
        self._config = config
        self._folder = folder
        self._client = self._library.MlflowClient(tracking_uri=place or None)
        self._run_id = ""

    def write(self, row: RoundRow) -> None:
        """Take a round, as the metrics of one step."""
        metric, now_ms = self._library.entities.Metric, int(1000 * time.time())
        self._run_id = self._run_id or self._begun()
        scalars = scalars_of(row).items()
        metrics = [metric(_UNNAMEABLE.sub("_", n), v, now_ms, row.round) for n, v in scalars]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, is_finished: bool) -> None:
        """Tell MLflow how the run ended."""
        if self._run_id:
            self._client.set_terminated(self._run_id, "FINISHED" if is_finished else "FAILED")

    def _begun(self) -> str:
        """The id of MLflow's run: a new one, or the one that goes on."""
        config, client, kept = self._config, self._client, self._folder / "mlflow.txt"
        if config.resume and kept.exists():
            return kept.read_text(encoding="utf-8")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "wattfed")
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        run_id = str(client.create_run(experiment, run_name=config.run_name).info.run_id)
        param = self._library.entities.Param
        params = [param(key, str(value)) for key, value in config.to_flower().items()]
        client.log_batch(run_id, params=params)
        kept.write_text(run_id, encoding="utf-8")
        return run_id


TRACKERS: Kind[Tracker] = Kind(
    "tracker",
    "wattfed.trackers",
    {"tensorboard": TensorBoard, "mlflow": MLflow},
    Tracker,
    fixed=("config", "folder"),
    hint=", as NAME or NAME:PLACE; or your own as pkg.mod:Name",
)


def tracker_of(config: RunConfig, folder: Path) -> Tracker:
    """The tracker that a run asks for.

    Raises
    ------
    UnknownName, InvalidInput
        If there is none of the name, or the library it needs is not installed.
    """
    if not config.log:
        return NoTracker()
    name, _, place = config.log.partition(":")
    known = {"config": config, "folder": folder}
    if name in TRACKERS.names():
        return _Steady(TRACKERS.make(name, **known, place=place), config.log)
    return _Steady(TRACKERS.make(config.log, **known), config.log)


def scalars_of(row: RoundRow) -> dict[str, float]:
    """The numbers of a round under names in groups, as trackers show them side by side."""
    scalars = {f"metric/{name}": value for name, value in row.metrics.items()}
    scalars |= {"fleet/time_s": row.clock_s, "fleet/energy_j": row.total_energy_j}
    if row.entry is not None:
        told = {**vars(row.entry), "energy_j": row.entry.energy_j}
        del told["round"]
        told["clients"] = len(row.entry.clients)
        scalars |= {f"round/{name}": value for name, value in told.items()}
    return {name: float(value) for name, value in scalars.items() if math.isfinite(value)}


class _Steady:
    """A tracker that can end a run at its beginning, and later only itself, with a warning."""

    def __init__(self, tracker: Tracker, what: str) -> None:
        self._tracker, self._what = tracker, what
        self._has_begun = False

    def write(self, row: RoundRow) -> None:
        try:
            self._tracker.write(row)
        except Exception as error:  # whatever a library and its server fail with
            if not self._has_begun:
                raise InvalidInput(f"log is {self._what}: {_line(error)}") from error
            log(WARNING, "log %s ends before round %d: %s", self._what, row.round, _line(error))
            self._tracker = NoTracker()
        self._has_begun = True

    def close(self, is_finished: bool) -> None:
        try:
            self._tracker.close(is_finished)
        except Exception as error:
            log(WARNING, "log %s is not closed: %s", self._what, _line(error))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _library(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise InvalidInput(f"log is {extra}: it needs pip install 'wattfed[{extra}]'") from None
