from __future__ import annotations

import json

import pytest

from powerctl.errors import InvalidInput, UnknownName
from powerctl.plugins import split_names
from wattfed.server.comparison.grid import Comparison, split_numbers
from wattfed.server.run.contender import Contender
from wattfed.strategies.run_config import RunConfig


def comparison(**changes):
    asked = {
        "base": RunConfig(),
        "strategies": ("random", "oort(clip=0.9)", "pace"),
        "powers": ("maxn", "slack"),
        "per_round": (3, 6),
        "seeds": (0, 1),
    }
    return Comparison(**{**asked, **changes})


def test_every_combination_runs_once_and_a_policy_that_chooses_modes_once_for_all_powers():
    runs = comparison().runs()
    assert len(runs) == (2 * 2 + 1) * 2 * 2
    assert len({run.run_name for run in runs}) == len(runs)
    assert {Contender.of(run).power for run in runs if run.strategy == "pace"} == {"joint"}


def test_what_a_policy_is_called_runs_no_code_that_results_of_others_name(tmp_path):
    (tmp_path / "theirs.py").write_text("raise SystemExit('it ran')\n")
    strategy = f"{tmp_path}/theirs.py:Mine"
    assert Contender.of(RunConfig(strategy=strategy, power="maxn")).policy == f"{strategy} at maxn"


def test_all_policies_come_before_the_next_seed_so_that_a_part_compares_too():
    assert [run.seed for run in comparison().runs()] == [0] * 10 + [1] * 10


def test_a_run_stops_at_the_last_target_unless_all_rounds_are_wanted():
    targets = (0.8, 0.9)
    assert {run.target_accuracy for run in comparison(targets=targets).runs()} == {0.9}
    whole = comparison(targets=targets, all_rounds=True)
    assert {run.target_accuracy for run in whole.runs()} == {0.0}


def test_a_comparison_survives_json():
    asked = comparison()
    assert Comparison.from_record(json.loads(json.dumps(asked.record()))) == asked


def test_lists_on_command_lines():
    assert split_names("random, oort(clip=0.9,pacer=3),pace,random") == (
        "random",
        "oort(clip=0.9,pacer=3)",
        "pace",
    )
    assert split_numbers("10,3,3", int, "--per-round") == (3, 10)
    with pytest.raises(InvalidInput, match="--per-round: cannot read '3,many'"):
        split_numbers("3,many", int, "--per-round")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"strategies": ()}, InvalidInput, "no strategies"),
        ({"per_round": ()}, InvalidInput, "no per round"),
        ({"targets": (0.0,)}, InvalidInput, "above 0"),
        ({"strategies": ("best",)}, UnknownName, "strategy 'best'"),
        ({"powers": ("turbo",)}, UnknownName, "power policy 'turbo'"),
    ],
)
def test_what_cannot_be_compared_is_said(changes, error, message):
    with pytest.raises(error, match=message):
        comparison(**changes).runs()
