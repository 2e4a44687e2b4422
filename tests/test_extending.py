"""docs/extend.md is true: the package that it shows is built, installed, and found by commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.fulcrum.problems import TrainAlone
from powerctl.fulcrum.replay import Replay
from powerctl.fulcrum.search import Search
from powerctl.plugins import load_object
from powerctl.workload import load_workload
from tests import warm
from tests.documented import ROOT, commands
from tests.strategies.offers_of import offer, rng
from wattfed.strategies.offers import Offers

pytestmark = pytest.mark.processes

PAGE = ROOT / "docs" / "extend.md"
INSTALL = "    pip install .\n"


def files_of(page: Path) -> dict[str, str]:
    """The files that a page shows, by the names that stand above them."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


def run(command: str | list[str], folder: Path, path: Path | None = None, code: int = 0) -> str:
    """What a process of its own prints, in a folder, with another on its path."""
    known = os.pathsep.join(map(str, [ROOT, *([path] if path else [])]))
    words = [*command] if isinstance(command, list) else ["-c", command]
    environment = {**os.environ, "PYTHONPATH": known, "COLUMNS": "200"}
    done = warm.run([sys.executable, *words], cwd=folder, env=environment)
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout if code == 0 else done.stderr


def as_typed(words: list[str]) -> list[str]:
    """A command of the page for this interpreter, without its script being installed."""
    main = {"powerctl": "powerctl.cli", "wattfed": "wattfed.server.cli"}[words[0]]
    code = f"import sys; sys.argv = {words!r}; from {main} import main; main()"
    return ["-c", code]


@pytest.fixture(scope="module")
def source(tmp_path_factory, small_table):
    """The package as a person writes it, with the files that the page speaks of."""
    folder = tmp_path_factory.mktemp("my-things")
    (folder / "my_things").mkdir()
    (folder / "my_things" / "__init__.py").touch()
    for name, text in files_of(PAGE).items():
        (folder / name).write_text(text)
    board = (ROOT / "powerctl" / "boards" / "orin-nano.toml").read_text()
    board = board.replace("Jetson Orin Nano 8 GB", "Orin Nano on our carrier", 2)
    (folder / "my_things" / "carrier.toml").write_text(board)
    small_table.write(folder / "measured.csv")
    return folder


def lines(after: bool) -> list[list[str]]:
    """The commands of the page, before or after the package is installed."""
    text = PAGE.read_text(encoding="utf-8")
    before = [
        command for command in commands(PAGE) if text.index(command.text) < text.index(INSTALL)
    ]
    return [c.words for c in commands(PAGE) if (c in before) is not after]


@pytest.fixture(scope="module")
def written(source):
    """What each command printed where the package lies, in the order of the page."""
    return {" ".join(words): run(as_typed(words), source) for words in lines(after=False)}


@pytest.fixture(scope="module")
def installed(written, source, tmp_path_factory):
    """A folder into which the package was installed, as a wheel of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip = [
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
    ]
    run([*pip, "--target", str(target), str(source)], source)
    assert (target / "my_things" / "my-net.toml").exists()
    return target


@pytest.fixture(scope="module")
def elsewhere(source, tmp_path_factory):
    """A folder without the package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(source / "measured.csv", folder)
    return folder


def test_the_examples_do_what_they_say(source, small_table):
    def made(text):
        where, _, name = text.partition(":")
        return load_object(f"{source}/my_things/{where}.py:{name}")

    inputs, labels = made("tasks:Blobs")(samples=500).train_samples()
    assert len(labels) == 500 and made("tasks:Blobs")().model()(inputs).shape == (500, 2)
    offers = Offers.of([offer(i, minibatches=4 + i % 3) for i in range(9)])
    selected = made("policies:MostExamples")(least=90).select(offers, 5, 1, rng())
    assert [assignment.client for assignment in selected] == [2, 5, 8]
    replay = Replay.of({"train": small_table}, "orin-agx")
    search = Search(TrainAlone(30.0), replay.candidates, replay.measure, cap=9)
    solution = made("solvers:EveryNth")().solve(search)
    assert solution.solved and solution.modes_profiled == 9
    nearest = made("predictors:Nearest")().fit(small_table.take(np.arange(0, 256, 2)))
    assert (nearest.predict(small_table.modes).time_s[::2] == small_table.time_s[::2]).all()
    assert len(made("data:nanos")(count=7)) == 7
    mode, job = load_board("orin-agx").space.maximum, load_workload("lstm-train")
    slow, quick = (made("devices:Dusty")(slower=by).steady(mode, job) for by in (2.0, 1.0))
    assert slow[0] == 2 * quick[0]


def test_by_file_and_by_module_everything_runs_where_it_lies(written):
    assert len(written) >= 9
    (simulated,) = (text for line, text in written.items() if "policies.py" in line)
    assert "my_things/policies.py:MostExamples(least=50)" in simulated
    (solved,) = (text for line, text in written.items() if "EveryNth" in line)
    assert "every 2000th mode" in solved
    (chosen,) = (text for line, text in written.items() if "Nearest" in line)
    assert "predicted by my_things.predictors:Nearest for orin-agx" in chosen


def test_by_entry_point_everything_runs_elsewhere(installed, elsewhere):
    found = {shlex.join(words): run(as_typed(words), elsewhere, installed) for words in lines(True)}
    listed = found.pop("wattfed strategies")
    for name in ("most-examples", "part-way", "office", "blobs", "my-net"):
        assert re.search(rf"\b{name}\b", listed)
    assert re.search(r"carrier .*Orin Nano on our carrier", found.pop("powerctl boards"))
    (solved,) = (text for line, text in found.items() if "every-nth" in line)
    assert "every 2000th mode" in solved and "dusty" in solved
    folder = next((elsewhere / "runs").iterdir())
    summary = json.loads((folder / "summary.json").read_text())
    assert folder.name.startswith("blobs-most-examples(least=10)-slack-seed0-")
    assert summary["task"] == "blobs" and summary["charged_workload"] == "my-net"
    assert summary["rounds"] == 3 and summary["final_accuracy"] > 0.8
    (line,) = (line for line in found if "--workers 2" in line)
    alone = shlex.split(line.replace("--workers 2", "--workers 1 --name alone"))
    run(as_typed(alone), elsewhere, installed)
    assert json.loads((elsewhere / "runs" / "alone" / "summary.json").read_text()) == summary


def test_without_the_package_its_names_are_unknown(elsewhere):
    line = ["powerctl", "choose", "--board", "carrier", "--energy-min"]
    assert "unknown board 'carrier'" in run(as_typed(line), elsewhere, code=2)
