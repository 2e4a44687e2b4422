from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.calibration import errors_pct
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.reference_fit import build_reference

pytestmark = pytest.mark.studies

BOARD = load_board("orin-agx")
NOISE = (0.02, 0.01)


def test_a_reference_explains_its_table_as_well_as_it_says(own_reference, model_table):
    table = model_table("resnet18-train", per_axis=3, noise=NOISE)
    errors = errors_pct(own_reference.hardware, own_reference.signature, table, 16)
    assert errors[0] == pytest.approx(own_reference.time_error_pct, rel=0.05)
    assert errors[1] == pytest.approx(own_reference.power_error_pct, rel=0.05)
    assert errors[0] < 3 and errors[1] < 1.5
    assert own_reference.n_rows == len(table)


def test_its_residual_covers_every_mode_of_the_board(own_reference):
    residual = own_reference.residual
    assert residual.smooth.shape == residual.spikes.shape == (1, 2, len(BOARD.space))
    assert residual.l4t == BOARD.l4t
    assert np.all(np.isfinite(residual.smooth)) and np.std(residual.smooth) < 0.05


def test_a_mode_far_from_its_neighbours_is_a_spike_and_no_other_is(model_table):
    table = model_table("resnet18-train", per_axis=4, noise=NOISE)
    odd = 77
    table.time_s[odd] *= 1.8
    reference = build_reference(table, BOARD, name="own", kind="train")
    spikes = reference.residual.spikes[0, 0]
    at = BOARD.space.indices(table.modes)[odd]
    assert spikes[at] == pytest.approx(np.log(1.8), abs=0.12)
    assert np.count_nonzero(spikes) == 1


def test_a_reference_of_several_batch_sizes_knows_fixed_parts_and_each_sizes_residual(model_table):
    table = model_table("resnet50-infer", per_axis=3, batch_sizes=(4, 64), noise=NOISE)
    reference = build_reference(table, BOARD, name="own", kind="infer", batch_size=4)
    assert reference.batched and reference.kind == "infer"
    assert reference.residual.batch_sizes.tolist() == [4, 64]
    assert reference.residual.smooth.shape == (2, 2, len(BOARD.space))
    assert reference.signature.flop > 0 and reference.signature.host_cycles > 0


def test_the_same_seed_builds_the_same_reference(model_table):
    table = model_table("lstm-train", noise=NOISE)
    small = table.take(np.arange(0, len(table), 5))
    one, again = (build_reference(small, BOARD, name="own", kind="train") for _ in range(2))
    assert one.signature == again.signature
    np.testing.assert_array_equal(one.residual.smooth, again.residual.smooth)


def test_a_table_of_modes_out_of_the_space_still_makes_a_cost_model(model_table):
    table = model_table("lstm-train", per_axis=3, noise=NOISE)
    moved = table.modes._replace(mem_hz=table.modes.mem_hz + 1)
    off = MeasurementTable(moved, None, table.time_s, table.power_w)
    reference = build_reference(off, BOARD, name="own", kind="train")
    assert reference.time_error_pct < 5
    assert not reference.residual.spikes.any()
