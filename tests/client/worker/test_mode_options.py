"""The modes worth choosing give the same fronts as all modes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.fulcrum.plans import front_within
from powerctl.modes import ModeArrays
from powerctl.powertrain.correction import FittedPredictor, SignaturePredictor
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.workload import load_workload
from wattfed.client.worker.mode_options import mode_options

LEARNED = [(0.0, 0.0, 0.0), (0.031, -0.047, 1.0), (-0.4, 0.2, 7.0), (0.1234567, 0.07654321, 3.0)]


@pytest.mark.parametrize("board", ["orin-agx", "orin-nano", "xavier-nx"])
@pytest.mark.parametrize("workload", ["mobilenetv3-train", "resnet18-train"])
@pytest.mark.parametrize("learned", LEARNED)
def test_a_front_is_that_of_all_modes_at_any_limit(board, workload, learned):
    board, workload = load_board(board), load_workload(workload)
    options = mode_options(SignaturePredictor, board, board.space, workload)
    assert len(options.modes.cores) < len(board.space) / 5
    predictor = SignaturePredictor(board, workload).load_state(learned)
    everything = predictor.predict(board.space.arrays)
    for limit_w in (4.0, 8.0, 11.3, 17.0, 30.0, math.inf):
        narrow = options.front(learned, limit_w)
        full = front_within(board.space.arrays, everything, limit_w)
        assert narrow.modes == full.modes
        np.testing.assert_array_equal(narrow.time_s, full.time_s)
        np.testing.assert_array_equal(narrow.energy_j, full.energy_j)
        preset = board.preset_within(limit_w).mode
        for mode, held in zip(
            (board.space.maximum, preset), options.maxn_and_preset(learned, limit_w), strict=True
        ):
            alone = predictor.predict(ModeArrays.of([mode]))
            assert held == (mode, alone.time_s[0], alone.energy_j[0])


def test_limits_that_admit_equally_many_modes_have_one_front():
    board, workload = load_board("orin-nano"), load_workload("mobilenetv3-train")
    options = mode_options(SignaturePredictor, board, board.space, workload)
    limits_w = np.linspace(3.0, 20.0, 400)
    counts = options.count_within(limits_w)
    assert (np.diff(counts) >= 0).all() and counts[0] == 0 and counts[-1] > 0
    fronts, presets = (
        [of((0.0, 0.0, 0.0), limit_w) for limit_w in limits_w.tolist()]
        for of in (lambda *unit: options.front(*unit).modes, options.maxn_and_preset)
    )
    for i in np.flatnonzero(np.diff(counts) == 0):
        assert fronts[i] == fronts[i + 1] and presets[i] == presets[i + 1]


def test_they_are_found_once_for_what_is_expected_of_all_units(small_table):
    board, workload = load_board("orin-agx"), load_workload("resnet18-train")
    few = small_table.take(np.arange(0, len(small_table), 40))
    fitted = [GaussianPredictor("orin-agx", kind="train").fit(few) for _ in range(2)]

    def found(index):
        def predicting(board, workload):
            return FittedPredictor(fitted[index], 16)

        return mode_options(predicting, board, board.space, workload)

    assert found(0) is found(0) is not found(1)
