from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import predict
from benchmarks.network_predictor import NetworkPredictor
from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import PowerctlError
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import load_workload

AGX, NANO = load_board("orin-agx"), load_board("orin-nano")
FIELDS = {"predictor", "sampling", "modes", "runs", "fit_s", "predict_s"} | {
    f"{what}_mape{which}" for what in ("time", "power") for which in ("", "_q1", "_q3")
}


def table_of(board, workload, batch_sizes=None):
    """A workload in the modes of a small sub-grid, from the cost model."""
    modes = board.space.thinned(3).arrays
    repeats = len(batch_sizes or [16])
    sizes = np.tile(batch_sizes or [16], len(modes.cores))
    modes = ModeArrays(*(np.repeat(axis, repeats) for axis in modes))
    cost = minibatch_cost(board.hardware, load_workload(workload).signature, *modes, sizes)
    return MeasurementTable(modes, sizes if batch_sizes else None, cost.time_s, cost.power_w)


def exact(table):
    """The prediction that is right everywhere."""
    return Prediction(
        table.time_s.copy(), table.power_w.copy(), 0.1 + 0 * table.time_s, 0.1 + 0 * table.time_s
    )


@pytest.fixture
def csv(tmp_path):
    """Write a table of a workload; gives its path."""

    def write(board, workload, batch_sizes=None):
        path = tmp_path / f"{board.name}-{workload}.csv"
        table_of(board, workload, batch_sizes).write(path)
        return path

    return write


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the benchmark with small networks; gives what it writes."""
    quick = partial(NetworkPredictor, epochs=2, entries_per_mode=2)
    monkeypatch.setattr(predict, "NetworkPredictor", quick)

    def invoke(*arguments):
        out = tmp_path / "out.json"
        command = [*map(str, arguments), "--runs", "2", "--json", str(out)]
        CliRunner().invoke(predict.main, command, catch_exceptions=False)
        return json.loads(out.read_text())

    return invoke


@pytest.mark.parametrize("name", ["network", "network-scratch", "gaussian", "default"])
def test_every_predictor_gives_a_row_for_every_number_of_modes(run, csv, name):
    target, reference = csv(AGX, "mobilenetv3-train"), csv(AGX, "resnet18-train")
    rows = run(
        *("--target", target, "--reference", reference, "--modes", "8,12", "--predictor", name)
    )
    assert [(row["predictor"], row["modes"], row["runs"]) for row in rows] == [
        (name, 8, 2),
        (name, 12, 2),
    ]
    for row in rows:
        assert row.keys() >= FIELDS
        for what in ("time", "power"):
            assert 0 < row[f"{what}_mape_q1"] <= row[f"{what}_mape"] <= row[f"{what}_mape_q3"]
            assert 0 <= row[f"coverage_{what}"] <= 1
        assert row["fit_s"] > 0 and row["predict_s"] > 0 and row["predict_space_s"] > 0


def test_ours_needs_no_reference_and_beats_a_network_from_scratch(run, csv):
    ours, network = run(
        *("--target", csv(NANO, "resnet18-train"), "--board", "orin-nano", "--modes", "10"),
        *("--predictor", "default,network-scratch"),
    )
    assert ours["time_mape"] < network["time_mape"]
    assert ours["power_mape"] < network["power_mape"]


def test_the_same_seed_gives_the_same_errors(run, csv):
    target = csv(AGX, "lstm-train")
    one, again, other = (
        run("--target", target, "--modes", "8", "--seed", seed)[0]["time_mape"]
        for seed in (3, 3, 4)
    )
    assert one == again != other


def test_modes_can_be_designed_and_chosen_from_under_power_limits(run, csv):
    (row,) = run(
        *("--target", csv(AGX, "mobilenetv3-infer", [1, 16]), "--modes", "7"),
        *("--reference", csv(NANO, "resnet18-train"), "--reference-board", "orin-nano"),
        *("--sampling", "designed", "--power-limits", "15:40:5"),
    )
    assert row["sampling"] == "designed"
    assert row["penalty_median_pct"] > -50
    assert 0 <= row["over_limit_1w_pct"] <= row["over_limit_pct"] <= 100


def test_a_mode_is_measured_with_all_its_batch_sizes():
    table = table_of(AGX, "mobilenetv3-infer", [1, 16, 64])
    rows = predict.sample_rows(table, 9, 0, None)
    assert len(rows) == 27
    assert len({table.modes.mode(row) for row in rows}) == 9


def test_measured_rows_are_left_out_of_the_errors():
    table, rows = table_of(AGX, "resnet18-train"), np.array([0, 5, 9])
    prediction = exact(table)
    prediction.time_s[rows] *= 2
    assert predict.judge(table, rows, prediction)["time_mape"] == 0
    prediction.time_s[1] *= 2
    found = predict.judge(table, rows, prediction)
    assert found["time_mape"] == pytest.approx(100 / (len(table) - 3))
    assert found["coverage_time"] == pytest.approx(1 - 1 / (len(table) - 3))


def test_unsupported_rows_are_left_out_of_the_screened_errors_alone():
    table, rows = table_of(AGX, "resnet18-train"), np.array([0, 5, 9])
    prediction = exact(table)
    prediction.power_w[3] *= 2
    unsupported = np.arange(len(table)) == 3
    found = predict.judge(table, rows, prediction, unsupported)
    assert found["power_mape_screened"] == 0 < found["power_mape"]
    assert predict.judge(table, rows, prediction)["power_mape_screened"] == found["power_mape"]


def test_exact_predictions_choose_the_optimum_and_a_margin_costs_time():
    table, limits_w = table_of(AGX, "resnet18-train"), np.arange(15.0, 45.0, 5)
    chosen = predict.choose(table, np.array([0]), exact(table), limits_w, 0.0)
    careful = predict.choose(table, np.array([0]), exact(table), limits_w, 1.28)
    assert all(penalty == 0 and over_w <= 0 for penalty, over_w in chosen)
    assert all(penalty >= 0 and over_w <= 0 for penalty, over_w in careful)
    assert sum(penalty for penalty, _ in careful) > 0


def test_a_choice_that_is_thought_to_need_less_breaks_the_limit_unless_it_was_measured():
    table = table_of(AGX, "resnet18-train")
    optimist = exact(table)._replace(power_w=np.full(len(table), 1.0))
    fastest, every = int(table.time_s.argmin()), np.arange(len(table))
    ((penalty, over_w),) = predict.choose(table, every[:1], optimist, np.array([20.0]), 0.0)
    assert penalty < 0 and over_w == pytest.approx(table.power_w[fastest] - 20)
    ((penalty, over_w),) = predict.choose(table, every, optimist, np.array([20.0]), 0.0)
    assert penalty == 0 and over_w <= 0


def test_limits_out_of_reach_are_left_out_and_without_hope_the_least_power_is_chosen():
    table = table_of(AGX, "resnet18-train")
    pessimist = exact(table)._replace(power_w=10 * table.power_w)
    limits_w = np.array([1.0, 20.0])
    ((penalty, over_w),) = predict.choose(table, np.array([], dtype=int), pessimist, limits_w, 0)
    assert penalty > 0 and over_w == pytest.approx(table.power_w.min() - 20)


def test_to_another_board_the_network_is_transferred_with_the_papers_loss(run):
    target = table_of(NANO, "resnet18-train")
    for board, loss in ((AGX, "mape"), (NANO, "mse")):
        known = [(table_of(board, "resnet18-train"), board)]
        assert predict._network(target, NANO, known, 0)(1).loss == loss


def test_a_table_of_another_board_is_remarked_on(csv):
    command = ["--target", str(csv(NANO, "resnet18-train")), "--modes", "5", "--runs", "1"]
    result = CliRunner().invoke(predict.main, command, catch_exceptions=False)
    assert "rows are no modes of orin-agx" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictor", "netwrok"], "did you mean 'network'"),
        (["--predictor", "network"], "give a --reference"),
        (["--modes", "81"], "81 modes, so 1 to 80 can be measured"),
        (["--modes", "ten"], "counts such as 10,20,50"),
        (["--power-limits", "17:50"], "start:stop:step"),
        (["--power-limits", "50:17:1"], "start:stop:step"),
        (["--reference-board", "orin-agx", "--reference-board", "orin-nano"], "once for each"),
    ],
)
def test_it_says_what_is_wrong_with_its_input(csv, arguments, message):
    command = ["--target", str(csv(AGX, "resnet18-train")), *arguments]
    with pytest.raises(PowerctlError, match=message):
        CliRunner().invoke(predict.main, command, catch_exceptions=False)
