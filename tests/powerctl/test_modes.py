from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.modes import ModeArrays, ModeSpace, PowerMode

AGX = load_board("orin-agx").space
XAVIER = load_board("xavier-agx").space
spaces = st.sampled_from([AGX, XAVIER, load_board("orin-nano").space])


@given(spaces, st.data())
def test_index_and_mode_are_inverse(space, data):
    index = data.draw(st.integers(0, len(space) - 1))
    mode = space.mode(index)
    assert mode in space
    assert space.indices(ModeArrays.of([mode])).tolist() == [index]
    assert space.arrays.mode(index) == mode


@given(spaces, st.data())
def test_a_printed_mode_is_read_back(space, data):
    mode = space.mode(data.draw(st.integers(0, len(space) - 1)))
    assert space.parse(str(mode)) == mode


@given(spaces, st.integers(1, 20), st.integers(1, 3 * 10**6), st.integers(1, 2 * 10**9))
def test_the_nearest_mode_is_in_the_space(space, cores, cpu_khz, gpu_hz):
    nearest = space.nearest(PowerMode(cores, cpu_khz, gpu_hz, 10**9))
    assert nearest in space
    assert space.nearest(nearest) == nearest


def test_indices_of_many_modes_mark_those_outside():
    arrays = AGX.arrays.take([0, 5, 17_000])
    arrays.gpu_hz[1] += 1
    assert AGX.indices(arrays).tolist() == [0, -1, 17_000]


def test_modes_are_hashable_ordered_and_printed_in_mhz():
    low, high = AGX.minimum, AGX.maximum
    assert low < high and len({low, high, AGX.mode(0)}) == 2
    assert str(high) == "12c/2201/1300/3199"


@pytest.mark.parametrize(
    ("text", "mode"),
    [("maxn", AGX.maximum), ("MIN", AGX.minimum), ("12/2201.6/1300.5/3199", AGX.maximum)],
)
def test_parsing_takes_names_and_exact_clocks(text, mode):
    assert AGX.parse(text) == mode


@pytest.mark.parametrize("text", ["", "12c/2201/1300", "fast", "12c/2201/1300/3199/1", "-1/2/3/4"])
def test_text_that_is_no_mode_is_refused_with_an_example(text):
    with pytest.raises(InvalidInput, match="12c/2201/1300/3199"):
        AGX.parse(text)


def test_a_clock_off_the_table_names_the_nearest_and_the_command():
    with pytest.raises(ModeNotInSpace, match=r"gpu 1250 MHz .* orin-agx .*1236.75, 1300.5.*modes"):
        AGX.parse("12c/2201/1250/3199")


def test_a_cap_between_clocks_means_the_lower_and_a_rounded_one_the_clock_itself():
    capped = XAVIER.capped([4, 1_200_000, 520_000_000, None])
    assert capped.values == (4, 1_190_400, 522_750_000, 2_133_000_000)


def test_sub_grids_keep_their_axes_order_and_refuse_foreign_values():
    grid = AGX.subspace(cores=[12, 4, 8], mem_hz=[3_199_000_000])
    assert grid.shape == (3, 29, 13, 1) and grid.cores == (4, 8, 12)
    assert all(mode in AGX for mode in grid.thinned(2))
    with pytest.raises(ModeNotInSpace, match="13"):
        AGX.subspace(cores=[13])
    with pytest.raises(InvalidInput, match="no axis speed"):
        AGX.subspace(speed=[1])


@pytest.mark.parametrize("axis", [(), (2, 1), (1, 1), (0, 1)])
def test_an_axis_must_ascend_from_a_positive_value(axis):
    with pytest.raises(InvalidInput, match="cores"):
        ModeSpace(axis, (1,), (1,), (1,))


def test_arrays_of_modes_keep_their_order():
    arrays = ModeArrays.of([AGX.maximum, AGX.minimum])
    assert arrays.cores.tolist() == [12, 1] and arrays.mode(1) == AGX.minimum
    assert ModeArrays.of([]).cores.shape == (0,)
