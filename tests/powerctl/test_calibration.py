from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.calibration import errors_pct, fit_hardware, fit_signature
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.measurement import MeasurementTable
from powerctl.workload import load_workload

AGX, NANO = load_board("orin-agx"), load_board("orin-nano")
RESNET, MOBILENET = (load_workload(n).signature for n in ("resnet18-train", "mobilenetv3-train"))


def table_of(signature, modes, batch_size=16, hardware=AGX.hardware):
    cost = minibatch_cost(hardware, signature, *modes, batch_size)
    return MeasurementTable(modes, None, cost.time_s, cost.power_w)


def test_a_signature_is_recovered_from_its_own_costs():
    truth = replace(MOBILENET, flop_per_sample=9e9, launch_cycles=5e7)
    fitted = fit_signature(AGX.hardware, table_of(truth, AGX.space.thinned(4).arrays), 16)
    time_error, power_error = errors_pct(
        AGX.hardware, fitted, table_of(truth, AGX.space.thinned(6).arrays), 16
    )
    assert time_error < 1.5 and power_error < 1


def test_five_modes_and_a_prior_correct_a_workload_twice_as_large():
    sizes = ("host_cycles_per_sample", "flop_per_sample", "traffic_bytes_per_sample")
    truth = replace(RESNET, **{name: 2 * getattr(RESNET, name) for name in sizes})
    every = table_of(truth, AGX.space.thinned(6).arrays)
    few = every.take(np.random.default_rng(0).permutation(len(every))[:5])
    fitted = fit_signature(AGX.hardware, few, 16, prior=RESNET)
    assert errors_pct(AGX.hardware, RESNET, every, 16)[0] > 40
    assert errors_pct(AGX.hardware, fitted, every, 16)[0] < 5


@pytest.mark.parametrize("background_hz", [5e7, 4e8])
@pytest.mark.parametrize("prior", [None, replace(MOBILENET, background_hz=0.0)])
def test_what_runs_in_the_background_is_found_even_if_the_prior_has_none(background_hz, prior):
    truth = replace(RESNET, background_hz=background_hz)
    every = table_of(truth, AGX.space.thinned(4).arrays)
    few = every.take(np.random.default_rng(0).permutation(len(every))[:22])
    fitted = fit_signature(AGX.hardware, few, 16, prior=prior)
    assert fitted.background_hz == pytest.approx(background_hz, rel=0.5)
    assert errors_pct(AGX.hardware, fitted, few, 16)[0] < 1
    assert errors_pct(AGX.hardware, fitted, every, 16)[0] < 1


def test_a_board_is_recovered_from_two_workloads():
    modes = AGX.space.thinned(4).arrays
    wrong = replace(AGX.hardware, static_w=5.0, byte_j=6e-11, gpu_busy_w=20.0)
    tables = [table_of(s, modes) for s in (RESNET, MOBILENET)]
    fitted = fit_hardware(wrong, tables, [RESNET, MOBILENET], 16)
    assert errors_pct(wrong, RESNET, tables[0], 16)[1] > 10
    assert errors_pct(fitted, RESNET, tables[0], 16)[1] < 1.5


def test_batch_sizes_give_fixed_and_per_sample_parts():
    truth = load_workload("resnet50-infer").signature
    modes = AGX.space.thinned(3).arrays
    sizes = (1, 4, 16, 64)
    parts = [table_of(truth, modes, size) for size in sizes]
    every = MeasurementTable(
        type(modes)(*(np.concatenate([axis] * len(sizes)) for axis in modes)),
        np.repeat(sizes, len(modes.cores)),
        np.concatenate([part.time_s for part in parts]),
        np.concatenate([part.power_w for part in parts]),
    )
    fitted = fit_signature(AGX.hardware, every, 16)
    assert errors_pct(AGX.hardware, fitted, every, 16)[0] < 2


def test_nothing_cannot_be_fitted():
    empty = table_of(RESNET, AGX.space.arrays.take([]))
    with pytest.raises(InvalidTable, match="nothing"):
        fit_signature(AGX.hardware, empty, 16)
    with pytest.raises(InvalidInput, match="at least one"):
        fit_hardware(AGX.hardware, [], [], 16)


@pytest.mark.parametrize(
    ("file", "board", "time_goal", "power_goal"),
    [
        ("orin_agx_train_resnet18.csv", AGX, 6, 5),
        ("orin_agx_train_mobilenetv3.csv", AGX, 6, 5),
        ("orin_agx_train_lstm.csv", AGX, 6, 5),
        ("orin_nano_train_resnet18.csv", NANO, 6, 5),
        ("orin_agx_infer_resnet50.csv", AGX, 8, 7),
        ("orin_agx_infer_mobilenetv3.csv", AGX, 11, 7),
    ],
)
def test_the_measured_tables_are_explained(shared_table, file, board, time_goal, power_goal):
    table = shared_table(file)
    fitted = fit_signature(board.hardware, table, 16)
    time_error, power_error = errors_pct(board.hardware, fitted, table, 16)
    assert time_error <= time_goal and power_error <= power_goal
