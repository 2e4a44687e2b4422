from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from powerctl.cli import cli
from powerctl.errors import InvalidInput, TaskFailed
from powerctl.task.data import load_data
from powerctl.task.loading import load_task, parse_settings
from powerctl.task.measuring import Repeated, steps_of
from powerctl.task.training import make_model
from tests.powerctl.task.conftest import GIVEN, TASKS

PROFILE = ("profile", "--device", "twin:orin-agx", "--mode", "maxn", "--mode", "4c/1190/522/2133")


@pytest.mark.parametrize("name", ["quickstart", "stepwise", "lstm", "stream"])
def test_a_task_is_repeated_for_as_long_as_it_is_measured(fixture_task, name):
    task = fixture_task(name)
    step = Repeated(task, "train", 16)
    epoch = len(list(load_data(task, GIVEN | {"batch_size": 16}).train))
    for _ in range(2 * epoch + 1):
        step()
    step.close()


def test_inference_is_what_its_test_does(fixture_task):
    step = Repeated(fixture_task("quickstart"), "infer", 4)
    for _ in range(5):
        step()
    step.close()
    with pytest.raises(TaskFailed, match="load_data returned one loader; to measure inference"):
        Repeated(fixture_task("lstm"), "infer", 4)


def test_several_sizes_need_data_that_depend_on_the_size(fixture_task):
    assert set(steps_of(fixture_task("quickstart"), "train", [4, 8])) == {4, 8}
    with pytest.raises(InvalidInput, match="load_data must take batch_size"):
        steps_of(fixture_task("transformer"), "train", [4, 8])


def test_a_model_that_is_none_is_an_error(written):
    text = "def load_data(): ...\ndef make_model(): ...\ndef train(): ...\ndef test(): ...\n"
    with pytest.raises(TaskFailed, match="make_model returned a NoneType, expected a torch.nn.Mod"):
        make_model(load_task(written(text)), {})


def test_settings_are_numbers_or_texts():
    found = parse_settings(["batch-size=8", "rate=1e-3", "name=a=b", "on=true", "path=/x", "e="])
    assert found == {
        "batch-size": 8,
        "rate": 1e-3,
        "name": "a=b",
        "on": True,
        "path": "/x",
        "e": "",
    }
    for text in ("x", "=3"):
        with pytest.raises(InvalidInput, match=r"--set .*: write KEY=VALUE"):
            parse_settings([text])
    for text in ("rate=NaN", "rate=-Infinity", "rate=1e999"):
        with pytest.raises(InvalidInput, match=r"--set rate=.*: a number must be finite"):
            parse_settings([text])


def test_the_command_profiles_a_users_task(tmp_path):
    log = str(tmp_path / "log.jsonl")
    own = ("--task", str(TASKS / "lstm.py"), "--set", "hidden-size=8")
    done = CliRunner().invoke(cli, [*PROFILE, *own, "--out", log, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["measurements"] == 2
    assert "time and power are those of lstm@" in done.stderr
    done = CliRunner().invoke(cli, [*PROFILE, *own[:2], "--out", log + "2", "--json"])
    assert isinstance(done.exception, TaskFailed) and "hidden_size" in str(done.exception)
