"""Each table is predicted and solved from the others, by constants that know nothing of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import leave_one_out
from benchmarks.configurations import published_modes
from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.workload import load_workload

pytestmark = pytest.mark.studies

AGX, NANO = load_board("orin-agx"), load_board("orin-nano")
FIELDS = {"what", "board", "workload", "beside", "modes", "prior"} | {
    *("time_mape", "power_mape", "time_coverage", "power_coverage", "solved_pct", "loss_mean_pct")
}


def write(folder, board, workload, space):
    """A table as the cost model has it, with a hundredth of noise."""
    signature = load_workload(f"{workload}-train").signature
    cost = minibatch_cost(board.hardware, signature, *space.arrays, 16)
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal((2, len(space))))
    table = MeasurementTable(space.arrays, None, cost.time_s * noise[0], cost.power_w * noise[1])
    table.write(folder / f"{board.name.replace('-', '_')}_train_{workload}.csv")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the benchmark on the tables of the test's folder, with next to no effort."""
    quick = leave_one_out.Effort(train_modes=(8,), infer_modes=(8,), runs=1, configurations=1)
    monkeypatch.setattr(leave_one_out, "QUICK", quick)

    def invoke(*arguments):
        out = tmp_path / "out.json"
        command = ["--tables", str(tmp_path), "--quick", "--json", str(out), *arguments]
        CliRunner().invoke(leave_one_out.main, command, catch_exceptions=False)
        return json.loads(out.read_text())

    return invoke


def test_each_table_is_predicted_and_counted_from_those_of_other_networks(run, tmp_path):
    for board, workload in ((AGX, "resnet18"), (AGX, "mobilenetv3"), (NANO, "resnet18")):
        write(tmp_path, board, workload, board.space.thinned(3))
    rows = run("--what", "train,counts")
    assert all(row.keys() >= FIELDS for row in rows)
    assert [(row["what"], row["board"], row["workload"]) for row in rows] == [
        (what, board, workload)
        for board, workload in (
            ("orin-agx", "mobilenetv3"),
            ("orin-agx", "resnet18"),
            ("orin-nano", "resnet18"),
        )
        for what in ("train", "counts")
    ]
    for row in rows:
        assert row["time_mape"] > 0 and row["power_mape"] > 0 and row["prior_hours"] > 0
        assert (row["time_coverage"] is None) == (row["what"] == "counts")


def test_solving_is_done_with_the_priors_and_without_any(run, tmp_path):
    for workload in ("resnet18", "lstm"):
        write(tmp_path, AGX, workload, published_modes(AGX))
    rows = run("--what", "solve-train")
    assert [(row["workload"], row["prior"]) for row in rows] == [
        (workload, prior) for workload in ("lstm", "resnet18") for prior in (True, False)
    ]
    for row in rows:
        assert row["modes"] == 10 and row["solved_pct"] > 0 and row["loss_mean_pct"] >= 0
        assert (row["prior_hours"] > 0) == row["prior"]


def test_a_run_that_was_stopped_goes_on_where_it_was(run, tmp_path, monkeypatch):
    for workload in ("resnet18", "lstm"):
        write(tmp_path, AGX, workload, AGX.space.thinned(3))
    whole = run("--what", "counts")
    (tmp_path / "out.json").write_text(json.dumps(whole[:1]))
    left_out = []
    without = leave_one_out.Fold.without

    def counted(networks, *arguments):
        left_out.append(set(networks))
        return without(networks, *arguments)

    monkeypatch.setattr(leave_one_out.Fold, "without", counted)
    assert run("--what", "counts", "--resume") == whole
    assert left_out == [{"resnet18"}]


def test_no_constant_of_a_fold_knows_the_table_that_is_left_out(tmp_path):
    """Another table of the same name gives the same fold: its rows have no part in it."""
    for workload in ("resnet18", "lstm"):
        write(tmp_path, AGX, workload, AGX.space.thinned(3))
    left_out, other = map(leave_one_out.Measured.of, sorted(tmp_path.glob("*.csv")))
    hot = leave_one_out.Measured(left_out.path, left_out.board, "train", left_out.workload)
    hot.__dict__["table"] = replace(left_out.table, power_w=3 * left_out.table.power_w)
    folds = [
        leave_one_out.Fold.without({"lstm"}, [each, other], tmp_path / name)
        for name, each in (("one", left_out), ("two", hot))
    ]
    one, two = (fold.board(left_out).hardware for fold in folds)
    assert one == two != AGX.hardware
    assert folds[0].references[0].signature == folds[1].references[0].signature
    assert [each.workload for each in folds[0].known] == ["resnet18"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--what", "trian"], "choose of train"), ([], "two tables")],
)
def test_it_says_what_is_wrong_with_its_input(tmp_path, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        CliRunner().invoke(
            leave_one_out.main, ["--tables", str(tmp_path), *arguments], catch_exceptions=False
        )
