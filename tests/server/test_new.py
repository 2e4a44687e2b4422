"""`wattfed new`: each template runs at once, and what cannot be written is refused in a line."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wattfed.server.cli import main
from wattfed.server.commands.new import TEMPLATES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder to be in; the module `task` is each app's own."""
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("task", None)
    yield tmp_path
    sys.modules.pop("task", None)


@pytest.fixture
def app(call, home, monkeypatch):
    def make(template):
        done = call(main, "new", "my-app", "--template", template)
        assert done.returncode == 0, done.stderr
        assert all(line in done.stdout for line in ("wattfed simulate", "flwr run .", "pytest"))
        monkeypatch.chdir(home / "my-app")
        return home / "my-app"

    return make


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_app_is_short_simulates_as_its_pyproject_says_and_passes_its_test(
    call, app, template, tmp_path
):
    folder = app(template)
    lines = [line for file in folder.iterdir() for line in file.read_text().splitlines()]
    assert sum(bool(line.strip()) for line in lines) < 80
    done = call(main, "simulate", "--rounds", 2, "--json")
    assert done.returncode == 0, done.stderr
    (summary,) = json.loads(done.stdout)
    config = json.loads(Path(summary["folder"], "config.json").read_text())
    assert (config["task"], config["per-round"], summary["rounds"]) == ("task", 2, 2)
    runpy.run_path("test_task.py")["test_two_rounds_learn"](tmp_path)


@pytest.mark.parametrize("template", TEMPLATES)
def test_flower_takes_the_run_config_that_the_docs_show(app, template):
    """It takes only keys that the app has."""
    text = (app(template) / "pyproject.toml").read_text()
    for page in ("start.md", "launch.md"):
        shown = re.findall(r'--run-config "(.*?)"', (ROOT / "docs" / page).read_text())
        keys = {key for config in shown for key in re.findall(r"([a-z-]+)=", config)}
        assert keys and all(f"\n{key} = " in text for key in keys - {"local-epochs"})


@pytest.mark.parametrize("template", TEMPLATES)
def test_its_python_is_in_order(app, template):
    folder = app(template)
    for what in (["check", "--isolated"], ["format", "--isolated", "--check"]):
        command = [sys.executable, "-m", "ruff", *what, "--line-length", "100", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.fixture
def photos(home):
    """A folder for each of three classes."""
    for label, name in enumerate(("cat", "cow", "dog")):
        (home / "photos" / name).mkdir(parents=True)
        for i in range(16):
            pixels = np.full((40, 50, 3), 100 * label + i, np.uint8)
            Image.fromarray(pixels).save(home / "photos" / name / f"{i}.png")
    return home / "photos"


def test_images_are_learned_from_a_folder_for_each_class(call, app, photos):
    folder = app("images")
    images, labels = runpy.run_path("task.py")["from_folder"](photos, 3)
    assert images.shape == (48, 3, 32, 32) and labels.bincount().tolist() == [16, 16, 16]
    own = ("--set", f"dataset-path={photos}", "--rounds", 1, "--json", "--name", "own")
    done = call(main, "simulate", *own, "--set", "classes=3")
    assert done.returncode == 0, done.stderr
    assert torch.load(folder / "runs/own/model.pt")["4.bias"].shape == (3,)


def test_images_of_other_classes_than_the_model_has_are_refused_in_a_line(call, app, photos):
    app("images")
    done = call(main, "simulate", "--set", f"dataset-path={photos}", "--rounds", 1)
    assert done.returncode == 2
    assert f"ValueError: {photos} has 3 folders, but classes is 2\n" in done.stderr


def test_what_is_given_goes_before_what_the_app_has(call, app):
    app("text")
    done = call(main, "simulate", "--task", "noop", "--rounds", 1, "--json", "--name", "given")
    assert done.returncode == 0, done.stderr
    config = json.loads(Path("runs/given/config.json").read_text())
    assert (config["task"], config["rounds"], config["fleet"]) == ("noop", 1, "fleet.toml")


def test_a_comparison_is_of_the_app_too(call, app):
    app("images")
    policies = ("--strategies", "all,random", "--power", "fastest", "--seeds", 1, "--jobs", 1)
    done = call(main, "compare", *policies, "--target", "accuracy=0.1", "--out", "compared")
    assert done.returncode == 0, done.stderr
    asked = json.loads(Path("compared/comparison.json").read_text())["asked"]
    assert (asked["base"]["task"], asked["base"]["fleet"]) == ("task", "fleet.toml")
    assert (asked["base"]["rounds"], asked["per_round"]) == (5, [2])


def test_a_target_that_is_given_goes_before_that_of_the_app(call, app):
    pyproject = app("images") / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + 'target = "accuracy=0.99"\n')
    done = call(main, "simulate", "--rounds", 1, "--target-accuracy", 0.1, "--name", "given")
    assert done.returncode == 0, done.stderr
    config = json.loads(Path("runs/given/config.json").read_text())
    assert (config["target"], config["target-accuracy"]) == ("", 0.1)


def test_what_flower_takes_of_no_app_is_refused_before_it_starts(call, app):
    app("images")
    done = call(main, "flower", "--local-epochs", 2)
    assert done.returncode == 2 and "put local-epochs into [tool.flwr.app.config]" in done.stderr


def test_the_pyproject_of_another_app_says_nothing(call, home):
    (home / "pyproject.toml").write_text("[tool.flwr.app.config]\nlr = 0.1\ntask = 'theirs'\n")
    done = call(main, "simulate", "--task", "noop", "--rounds", 1, "--name", "mine")
    assert done.returncode == 0, done.stderr


NO_NAMES = {
    **{"": "my-app", "a/b": "a-b", "..": "my-app", "my_app": "my-app", "-app": "app"},
    **{"app-": "app", "1app": "app", "a" * 101: "a" * 100},
}


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_in_a_line(call, home, name):
    done = call(main, "new", "--", name)
    assert done.returncode == 2 and "is no name of an app" in done.stderr
    assert done.stderr.endswith(f"such as {NO_NAMES[name]}\n")
    assert len(done.stderr.splitlines()) == 1 and not any(home.iterdir())


def test_a_folder_that_is_there_is_left_as_it_is(call, home):
    (home / "my-app").mkdir()
    done = call(main, "new", "my-app")
    assert done.returncode == 2 and "my-app is there already" in done.stderr
    assert not any((home / "my-app").iterdir())
