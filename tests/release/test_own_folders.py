"""An app whose own folders are called client, server and strategies, with wattfed installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.federation import COMPLETED, Federation

pytestmark = pytest.mark.processes

APP = Path(__file__).resolve().parents[1] / "own_folders"
OWN = ("client", "server", "strategies")


@pytest.fixture
def app(tmp_path) -> Path:
    """The app in a folder of its own, outside of any checkout."""
    return Path(shutil.copytree(APP, tmp_path / "own-folders"))


def test_it_simulates_and_its_folders_are_its_own(app, installed):
    done = subprocess.run(
        [sys.executable, "simulated.py"],
        capture_output=True,
        text=True,
        cwd=app,
        env={**os.environ, "PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr  # nor a line of Flower's
    said = json.loads(done.stdout)
    assert said["gate"] == "the app's own gate" and "1 rounds" in said["result"]
    where = {name: Path(path).parents[1] for name, path in said["files"].items()}
    assert where == {**dict.fromkeys(OWN, app), "wattfed": installed, "powerctl": installed}
    (folder,) = (app / "runs").iterdir()
    assert folder.name in said["result"] and (folder / "summary.json").is_file()


def test_it_trains_on_a_superlink(app, installed, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    node = {"partition-id": 0, "num-partitions": 1, "device": "twin:orin-nano"}
    with Federation(tmp_path / "federation", [node]) as federation:
        result = federation.run(app, {"out-dir": str(tmp_path)})
    assert result.status == COMPLETED, result.log
    (report,) = map(json.loads, (tmp_path / "own" / "reports.jsonl").read_text().splitlines())
    assert report["minibatches"] > 0
