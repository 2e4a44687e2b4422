from __future__ import annotations

import sys
from pathlib import Path

import pytest

from powerctl.errors import InvalidInput, UnknownName
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import RunGoal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_pyproject_has_the_same_defaults():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert tomllib.loads(text)["tool"]["flwr"]["app"]["config"] == RunConfig().to_flower()


def test_flower_runs_read_what_was_written_and_numbers_keep_their_kind():
    config = RunConfig(strategy="fedcs", deadline_s=30.0)
    assert RunConfig.from_flower(config.to_flower()) == config
    assert RunConfig.from_flower({"deadline-s": 30}).deadline_s == 30.0


def test_usual_names_tell_runs_apart_that_cannot_go_on_from_each_other():
    usual = RunConfig()
    assert usual.run_name == "digits-pace-slack-seed0"
    others = [
        RunConfig(fleet="hundred-jetsons"),
        RunConfig(fleet="folder/mine.toml"),
        RunConfig(workload="lstm-train"),
        RunConfig(learning_rate=0.5),
        RunConfig(local_epochs=1),
        RunConfig(per_round=2),
        RunConfig(seed=1),
        RunConfig(settings=(("width", 8),)),
    ]
    names = [config.run_name for config in (usual, *others)]
    assert len({*names}) == len(names) and "/" not in "".join(names)
    same = RunConfig(rounds=3, target_accuracy=0.5, workers=1, data_dir="x", checkpoint_every=5)
    assert same.run_name == usual.run_name
    long = [RunConfig(settings=((f"key{'y' * 200}", number),)).run_name for number in range(2)]
    assert long[0] != long[1] and max(map(len, long)) < 200
    assert RunConfig(name="mine", per_round=2).run_name == "mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"per_round": -1}, "per-round must be at least 1"),
        ({"learning_rate": 0.0}, "learning-rate must be positive"),
        ({"deadline_s": -1.0}, "deadline-s cannot be negative"),
        ({"target_accuracy": 1.5}, "target-accuracy must be between 0 and 1"),
        ({"target": "mAP=much"}, "target: cannot read 'mAP=much'"),
        ({"target": "mAP=0.5", "target_accuracy": 0.9}, "give target or target-accuracy, not both"),
        ({"seed": -1}, "seed cannot be negative"),
        ({"power": "turbo"}, "unknown power policy 'turbo'"),
        ({"precision": "float16"}, "unknown precision 'float16'"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises((InvalidInput, UnknownName), match=message):
        RunConfig(**values)


def test_a_run_has_one_goal_by_its_name_or_by_the_short_form_for_accuracy():
    assert RunConfig().goal is None
    assert RunConfig(target_accuracy=0.9).goal == RunConfig(target="accuracy=0.9").goal
    assert RunConfig(target="accuracy=93").goal == RunGoal("accuracy", (93.0,))
    assert RunConfig.from_flower({"target": "loss=0"}).goal == RunGoal("loss", (0.0,))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30])
def test_a_setting_of_a_task_is_held_to_what_a_value_may_be(value):
    with pytest.raises(InvalidInput, match="dim"):
        RunConfig.from_flower({"dim": value})


def test_keys_that_are_not_ours_are_settings_of_the_task():
    config = RunConfig.from_flower({"rounds": 3, "model-name": "tiny", "dim": 8})
    assert config.settings == (("dim", 8), ("model-name", "tiny"))
    assert RunConfig.from_flower(config.to_flower()) == config


def test_kinds_are_named():
    with pytest.raises(InvalidInput, match="rounds must be int"):
        RunConfig.from_flower({"rounds": "many"})


@pytest.mark.parametrize(
    ("given", "workers", "cluster"),
    [
        (2, 2, None),
        ("2", 2, None),
        ("ray", "ray", ""),
        ("ray:first:6379", "ray:first:6379", "first:6379"),
    ],
)
def test_workers_are_processes_or_a_cluster(given, workers, cluster):
    config = RunConfig().changed(workers=given)
    assert config.workers == workers and config.cluster == cluster
    assert RunConfig.from_flower(config.to_flower()) == config


@pytest.mark.parametrize("given", ["rays", "ray:first", "ray:", "two", "1.5"])
def test_other_workers_are_refused(given):
    with pytest.raises(InvalidInput, match="workers is a number of processes, ray or ray:HOST"):
        RunConfig(workers=given)
