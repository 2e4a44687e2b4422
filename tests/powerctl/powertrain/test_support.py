from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from powerctl.powertrain.support import screened

SIZES = (1, 4, 16)


@pytest.fixture(scope="module")
def tables(model_table):
    """A training table and one of three batch sizes, as they are measured."""
    return {
        "train": model_table("mobilenetv3-train", noise=(0.02, 0.01)),
        "infer": model_table("resnet50-infer", per_axis=4, batch_sizes=SIZES, noise=(0.02, 0.01)),
    }


def glitched(table, factors):
    """A table in which some rows have other times and powers: by row, the factor of each."""
    time_s, power_w = table.time_s.copy(), table.power_w.copy()
    for row, (of_time, of_power) in factors.items():
        time_s[row] *= of_time
        power_w[row] *= of_power
    return replace(table, time_s=time_s, power_w=power_w)


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_rows_that_their_neighbours_do_not_support_are_found_and_hardly_any_others(tables, kind):
    factors = {7: (0.4, 1.0), 90: (1.0, 0.3), 150: (2.5, 1.4)}
    found = np.flatnonzero(screened(glitched(tables[kind], factors)).unsupported).tolist()
    assert {*factors} <= {*found}
    assert len(found) - len(factors) <= 0.01 * len(tables[kind])


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_unsupported_rows_are_replaced_by_what_the_others_say_and_all_else_is_kept(tables, kind):
    table = tables[kind]
    found = screened(glitched(table, {90: (0.3, 0.3)}))
    kept = ~found.unsupported
    np.testing.assert_allclose(found.table.time_s[kept], table.time_s[kept], rtol=1e-12)
    np.testing.assert_allclose(found.table.power_w[kept], table.power_w[kept], rtol=1e-12)
    assert found.table.time_s[90] == pytest.approx(table.time_s[90], rel=0.25)
    assert found.table.power_w[90] == pytest.approx(table.power_w[90], rel=0.25)


def test_a_deviation_of_a_fifth_is_no_glitch(tables):
    off = glitched(tables["train"], {90: (1.2, 1.0), 150: (1.0, 0.85)})
    assert not screened(off).unsupported[[90, 150]].any()


def test_where_all_rows_scatter_none_stands_out(model_table):
    scattered = model_table("mobilenetv3-train", noise=(0.3, 0.3))
    assert screened(scattered).unsupported.mean() < 0.005


@pytest.mark.parametrize("n", [0, 1, 12])
def test_a_few_modes_are_not_judged(tables, n):
    few = glitched(tables["train"].take(np.arange(n)), {0: (9, 9)} if n else {})
    found = screened(few)
    assert not found.unsupported.any()
    np.testing.assert_array_equal(found.table.time_s, few.time_s)
