from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from benchmarks import interleave_virtual
from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from tests.powerctl.fulcrum.conftest import twin_table


@pytest.fixture
def tables(tmp_path):
    space = load_board("orin-agx").space.thinned(3)
    twin_table("resnet18-train", space).write(tmp_path / "train.csv")
    twin_table("mobilenetv3-infer", space, (1, 4, 16)).write(tmp_path / "infer.csv")
    return ["--train", str(tmp_path / "train.csv"), "--infer", str(tmp_path / "infer.csv")]


def run(tmp_path, *arguments):
    out = tmp_path / "out.json"
    arguments = [*arguments, "--modes", "2", "--seconds", "10", "--json", str(out)]
    result = CliRunner().invoke(interleave_virtual.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(out.read_text())


def test_with_exact_times_nothing_is_missed_and_training_has_the_rest(tables, tmp_path):
    found = run(tmp_path, *tables, "--loads", "30,60", "--cv", "0")
    assert len(found["rows"]) == 2 * 3 * 2  # modes, batches, loads
    assert all(row["missed"] == 0 and row["p99_of_budget"] <= 1 for row in found["rows"])
    assert all(row["train_of_left_pct"] > 90 for row in found["rows"])
    assert found["decision_us"]["p50"] > 0 and found["events_hz"] > 0


def test_there_is_a_summary_of_every_batch_and_of_all(tables, tmp_path):
    found = run(tmp_path, *tables, "--loads", "50", "--batch", "4,16", "--cv", "0,0.05")
    keys = [(s["variation"], s["load"], s["batch"]) for s in found["summaries"]]
    assert keys == [(cv, 0.5, batch) for cv in (0.0, 0.05) for batch in (4, 16, "all")]
    requests = [s["requests"] for s in found["summaries"][:3]]
    assert requests[0] + requests[1] == requests[2]


def test_traces_are_of_the_seed_and_the_same_for_every_variation(tables, tmp_path):
    arguments = (*tables, "--loads", "50", "--batch", "4")
    one, other = (run(tmp_path, *arguments, "--seed", seed)["rows"] for seed in "01")
    assert one[0]["requests"] == one[1]["requests"]
    assert [row["requests"] for row in one] != [row["requests"] for row in other]


def test_the_planned_batch_may_be_the_largest(tables, tmp_path):
    arguments = (*tables, "--loads", "50", "--batch", "1", "--cv", "0", "--largest", "planned")
    assert all(row["mean_batch"] == 1 for row in run(tmp_path, *arguments)["rows"])


def test_what_was_not_measured_is_named(tables):
    for arguments, message in ((["--batch", "5"], "batch"), (["--loads", "a"], "list of numbers")):
        with pytest.raises(InvalidInput, match=message):
            CliRunner().invoke(
                interleave_virtual.main, [*tables, *arguments], catch_exceptions=False
            )
