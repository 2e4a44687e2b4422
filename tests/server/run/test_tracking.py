"""Rounds reach the trackers that people look at, and a tracker that fails spoils no run."""

from __future__ import annotations

import logging
import sys

import pytest

from powerctl.errors import InvalidInput, UnknownName
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.history import RoundRow
from wattfed.server.run.tracking import MLflow, scalars_of
from wattfed.strategies.run_config import RunConfig

OWN = """
from pathlib import Path

class Mine:
    def __init__(self, folder, fails_at=99):
        self.told, self.fails_at = Path(folder) / "told.txt", fails_at

    def write(self, row):
        if row.round == self.fails_at:
            raise ConnectionError("nobody is there\\nor anywhere")
        with open(self.told, "a") as file:
            file.write(f"{row.round} ")

    def close(self, is_finished):
        with open(self.told, "a") as file:
            file.write(f"{is_finished}")
"""


@pytest.fixture
def config(tmp_path):
    """A run of two rounds that learns nothing."""
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[group]]\nboard = "orin-nano"\ncount = 3\npower_w = 10\n')
    return RunConfig(
        task="noop", fleet=str(fleet), rounds=2, per_round=2, strategy="random", workers=1,
        local_epochs=1, out_dir=str(tmp_path / "runs"), name="mine",
    )  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """The name of a tracker of one's own."""
    (tmp_path / "mine.py").write_text(OWN)
    return f"{tmp_path}/mine.py:Mine"


@pytest.fixture
def warned(caplog):
    """What is said in Flower's log, which may or may not propagate."""
    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    yield lambda: {record.getMessage() for record in caplog.records}
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory):
    """The address of a database of MLflow's, which takes seconds to make."""
    pytest.importorskip("mlflow")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/tracked.db"


def told(result):
    return (result.folder / "told.txt").read_text()


def test_a_tracker_of_ones_own_takes_every_round_and_the_end(config, own):
    assert told(simulate(config, log=own)) == "0 1 2 True"


def test_a_tracker_that_fails_at_once_ends_the_run_before_it_trains(config, own):
    with pytest.raises(InvalidInput, match="Mine.fails_at=0.: ConnectionError: nobody is there$"):
        simulate(config, log=f"{own}(fails_at=0)")


def test_a_tracker_that_fails_later_is_told_and_the_run_goes_on(config, own, warned):
    result = simulate(config, log=f"{own}(fails_at=1)")
    assert result.rows[-1].round == 2 and told(result) == "0 "
    (warning,) = warned()
    assert "ends before round 1: ConnectionError: nobody is there" in warning


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("paper", UnknownName, "unknown tracker 'paper'.*known: mlflow, tensorboard"),
        ("tensorboard", InvalidInput, r"it needs pip install 'wattfed\[tensorboard\]'"),
        ("mlflow:sqlite:///x", InvalidInput, r"it needs pip install 'wattfed\[mlflow\]'"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_written(
    config, tmp_path, monkeypatch, text, error, message
):
    for library in ("torch.utils.tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(error, match=message):
        simulate(config, log=text)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("place", ["", "events"])
def test_tensorboard_shows_every_number_of_every_round_once(config, tmp_path, place):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = f"tensorboard:{tmp_path / place}" if place else "tensorboard"
    simulate(config, log=log)
    result = simulate(config, log=log, resume=True, rounds=3)
    folder = tmp_path / place / "mine" if place else result.folder / "tensorboard"
    events = EventAccumulator(str(folder)).Reload()
    for row in result.rows:
        for name, value in scalars_of(row).items():
            (found,) = [event.value for event in events.Scalars(name) if event.step == row.round]
            assert found == pytest.approx(value)
    assert "strategy = random" in str(events.Tensors("configuration/text_summary")[0])


def runs_of(uri, name):
    """The client of a database of MLflow's, and its runs of a name."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("wattfed").experiment_id
    return client, [r for r in client.search_runs([experiment]) if r.info.run_name == name]


def test_mlflow_has_the_run_with_its_parameters_and_every_number_once(config, mlflow_uri):
    log = f"mlflow:{mlflow_uri}"
    simulate(config, log=log)
    result = simulate(config, log=log, resume=True, rounds=3)
    client, (run,) = runs_of(mlflow_uri, "mine")
    assert run.info.status == "FINISHED" and run.data.params["strategy"] == "random"
    for row in result.rows:
        for name, value in scalars_of(row).items():
            history = client.get_metric_history(run.info.run_id, name)
            (found,) = {metric.value for metric in history if metric.step == row.round}
            assert found == pytest.approx(value)


def test_names_of_metrics_become_such_as_mlflow_takes(config, tmp_path, mlflow_uri):
    tracker = MLflow(config.changed(name="named"), tmp_path, mlflow_uri)
    tracker.write(RoundRow(0, {"mAP@0.5 (small)": 0.25, "loss": float("nan")}, 0.0, 0.0))
    tracker.close(False)
    _, (run,) = runs_of(mlflow_uri, "named")
    assert run.data.metrics["metric/mAP_0.5 _small_"] == 0.25 and run.info.status == "FAILED"
