"""What a device measures of a task is kept, predicts, and is set aside when the work changes."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.devices.opening import open_device
from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.correction import SignaturePredictor
from powerctl.workload import load_workload, write_workload
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.local_client import LocalClient
from wattfed.client.worker.measured_task import MeasuredRow, MeasuredTask
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

BOARD = load_board("orin-nano")
COUNTED = replace(load_workload("resnet18-train"), name="mine@0123456789ab-b16")
MODES = BOARD.space.arrays.take(np.linspace(100, 1700, 9).astype(np.int64))
TRUTH = SignaturePredictor(BOARD, COUNTED).predict(MODES)


def row(i: int, factor: float = 1.0, minibatches: int = 40) -> MeasuredRow:
    """The mode of a number, measured; what it takes is a factor of what was counted."""
    time_s, power_w = factor * float(TRUTH.time_s[i]), float(TRUTH.power_w[i])
    return MeasuredRow(MODES.mode(i).values, time_s, power_w, minibatches, "idle", 0.0)


@pytest.fixture
def task(tmp_path) -> MeasuredTask:
    return MeasuredTask(tmp_path, BOARD, COUNTED)


@pytest.fixture
def known(task) -> MeasuredTask:
    """Five modes are measured, of work that takes a fifth longer than was counted."""
    task.record([row(i, 1.2) for i in range(5)])
    return task


def test_a_table_is_no_predictor_until_there_is_a_row_and_each_row_teaches(task):
    assert task.predictor() is None
    errors = []
    for n in (1, 4, 8):
        task.record([row(i, 1.25) for i in range(n)])
        found = task.predictor().predict(MODES)
        errors.append(float(np.abs(np.log(found.time_s / (1.25 * TRUTH.time_s))).mean()))
    assert errors[2] < errors[0] and errors[2] < 0.03


def test_another_process_reads_what_was_fitted_and_fits_what_has_changed(known, tmp_path):
    fit = known.path.with_suffix(".npz")
    kept, expected = fit.read_bytes(), known.predictor().predict(MODES)
    fresh = MeasuredTask(tmp_path, BOARD, COUNTED)
    found = fresh.predictor().predict(MODES)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert fit.read_bytes() == kept
    MeasuredTask(tmp_path, BOARD, COUNTED).record([row(7, 1.2)])
    assert fresh.predictor().predict(MODES).time_std[7] < found.time_std[7]
    assert fresh.predictor().origin == fresh.predictor().origin  # shared until the next change
    fit.write_bytes(b"no archive")
    assert MeasuredTask(tmp_path, BOARD, COUNTED).predictor() is not None


def test_what_a_mode_takes_is_the_mean_of_all_that_was_measured_in_it(task):
    task.record([row(3, 1.0, minibatches=30), row(3, 1.1, minibatches=10)])
    (found,) = task.read().rows
    assert found.minibatches == 40
    assert found.time_s == pytest.approx(1.025 * TRUTH.time_s[3])


def test_one_measurement_that_is_off_changes_nothing_and_is_kept(known):
    assert len(known.record([row(2, 2.0)]).rows) == 5
    found = known.record([row(6, 1.2)])
    assert found.aside is None and found.suspect is None
    assert {r.mode for r in found.rows} == {MODES.mode(i).values for i in (*range(5), 6)}


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_work_that_has_changed_sets_what_was_measured_aside_and_says_so(known, caplog, factor):
    known.record([row(2, 1.2 * factor)])
    with caplog.at_level(logging.WARNING):
        found = known.record([row(3, 1.2 * factor)])
    assert len(found.rows) == 2 and len(found.aside.rows) == 5
    assert found.aside.factor == pytest.approx(factor)
    assert f"takes {factor:g} times as long" in caplog.text and "5 modes" in caplog.text
    now = known.predictor().predict(MODES).time_s
    assert np.abs(np.log(now / (1.2 * factor * TRUTH.time_s))).mean() < 0.5 * abs(np.log(factor))


def test_rounds_that_always_run_in_one_mode_notice_it_too(known):
    known.record([row(2, 2.0)])
    assert len(known.record([row(2, 2.0)]).aside.rows) == 5


def test_two_that_are_off_in_opposite_directions_are_no_change(known):
    known.record([row(2, 2.0)])
    assert known.record([row(3, 0.7)]).aside is None


def test_a_mode_that_stands_out_twice_is_as_it_is(known):
    known.record([row(7, 2.5)])
    found = known.record([row(7, 2.5)])
    assert found.aside is None and len(found.rows) == 6


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda content: {**content, "board": "orin-agx"}, "on orin-agx, not mine@"),
        (lambda content: {**content, "workload": "mine@ffffffffffff-b16"}, "of mine@ffff"),
        (lambda content: {**content, "rows": [{"mode": [1, 2, 3, 4]}]}, "no time_s"),
        (lambda content: {**content, "rows": [{**content["rows"][0], "time_s": -1}]}, "time_s"),
        (lambda content: [], "expected a table"),
    ],
)
def test_a_table_of_another_board_or_code_or_damaged_is_named_and_costs_no_round(
    tmp_path, spoil, why, caplog
):
    costs = CostModels(tmp_path, "twin:orin-nano")
    costs.measured(BOARD, COUNTED).record([row(0, 3.0)])
    path = costs.measured(BOARD, COUNTED).path
    assert path.parent == tmp_path / "measured" / "twin-orin-nano"
    write_output(path, json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(InvalidInput, match=why):
        MeasuredTask(path.parent, BOARD, COUNTED).read()
    for _ in range(2):
        found = costs.predictor(BOARD, COUNTED).predict(MODES)
        assert np.array_equal(found.time_s, TRUTH.time_s)
    assert caplog.text.count(path.name) == 1


def test_a_table_that_is_put_there_is_read_anew_when_it_changes(tmp_path):
    costs, workload = CostModels(tmp_path), load_workload("resnet18-train")
    fast = ModeArrays.of([BOARD.space.maximum])
    (tmp_path / "tables").mkdir()
    found = []
    for time_s in (0.5, 2.0):
        fact = Measurement(BOARD.space.maximum, time_s, 12.0)
        MeasurementTable.of([fact]).write(tmp_path / "tables" / "resnet18-train.csv")
        found.append(float(costs.predictor(BOARD, workload).predict(fast).time_s[0]))
    assert found[1] > 2 * found[0]


def test_rounds_add_what_they_measure_and_the_next_offer_is_from_it(tmp_path):
    device = open_device("twin:orin-nano")
    write_workload(COUNTED, tmp_path / "mine.toml")
    config = RunConfig(workload=str(tmp_path / "mine.toml"), local_epochs=5)
    profile = ClientProfile(0, "twin:orin-nano", TrainingLimits())

    costs = CostModels(tmp_path, profile.device)
    one = LocalClient(config, profile, 20, ClientState(), device, costs)
    counted, fast = one.offer().maxn, ModeArrays.of([BOARD.space.maximum])
    report = one.train(one.task.model(), RoundAssignment(0, minibatches=40), 1)
    (measured,) = MeasuredTask(tmp_path / "measured" / "twin-orin-nano", BOARD, COUNTED).read().rows
    assert measured.origin == "round" and measured.minibatches == report.minibatches
    assert (str(PowerMode(*measured.mode)),) == report.modes
    maxn = one.offer().maxn
    assert maxn != counted
    assert maxn.time_s == costs.predictor(BOARD, one.workload).predict(fast).time_s[0]
    assert one.train(one.task.model(), RoundAssignment(0, minibatches=40), 2).minibatches == 40
    assert one.state.predictor == (0.0, 0.0, 0.0)  # the table has learned, and no factor beside
