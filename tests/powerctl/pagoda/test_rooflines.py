"""Rooflines keep the identities of Choi et al., and find the coefficients that made a table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.modes import ModeArrays
from powerctl.pagoda.rooflines import Rooflines, board_rooflines, fit_energy

BOARD = load_board("orin-agx")
POSITIVE = st.floats(0.1, 10.0)


def rooflines(flops=1.0, bandwidth=1.0, flop_j=1.0, byte_j=1.0, constant_w=1.0) -> Rooflines:
    values = (5e12 * flops, 2e11 * bandwidth, 2e-12 * flop_j, 1e-10 * byte_j, 15 * constant_w)
    return Rooflines(*(np.array([value]) for value in values))


any_rooflines = st.builds(rooflines, POSITIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE)


def test_the_peaks_of_maxn_are_the_vendors():
    maxn = board_rooflines(BOARD, ModeArrays.of([BOARD.space.maximum]))
    assert maxn.peak_flops[0] == pytest.approx(5.33e12, rel=1e-3)
    assert maxn.peak_bandwidth[0] == pytest.approx(204.7e9, rel=1e-3)
    assert maxn.time_balance[0] == pytest.approx(26.0, rel=2e-3)


@given(any_rooflines, st.floats(0.01, 1e4))
def test_flop_per_joule_is_work_over_energy(lines, intensity):
    energy_j = lines.energy_j(1e12, 1e12 / intensity)
    np.testing.assert_allclose(lines.flop_per_j(intensity), 1e12 / energy_j, rtol=1e-9)


@given(any_rooflines)
def test_half_the_peak_is_reached_where_it_says(lines):
    at = lines.half_efficiency_intensity
    np.testing.assert_allclose(lines.flop_per_j(at), lines.peak_flop_per_j / 2, rtol=1e-9)


@given(any_rooflines)
def test_being_bound_by_compute_is_efficient_exactly_where_it_says(lines):
    at_balance = lines.flop_per_j(lines.time_balance) / lines.peak_flop_per_j
    if abs(at_balance[0] - 0.5) > 1e-9:
        assert lines.time_efficient_is_energy_efficient[0] == (at_balance[0] > 0.5)


def test_cheap_bytes_make_racing_pay_and_dear_ones_do_not():
    assert rooflines(byte_j=0.1).time_efficient_is_energy_efficient[0]
    assert not rooflines(byte_j=10, constant_w=0.01).time_efficient_is_energy_efficient[0]


def test_a_higher_memory_clock_only_helps_work_that_is_bound_by_it():
    modes = ModeArrays.of([BOARD.space.parse(f"12c/2201/1300/{mhz}") for mhz in (2133, 3199)])
    lines = board_rooflines(BOARD, modes)
    slow, fast = lines.time_s(1e9, 1e9)
    assert slow / fast == pytest.approx(3199 / 2133)
    slow, fast = lines.time_s(1e12, 1e6)
    assert slow == fast


def kernels(noise: float):
    rng = np.random.default_rng(0)
    flop = np.full(40, 1e12)
    traffic = flop / np.geomspace(0.1, 1000, 40)
    time_s = np.maximum(flop / 5e12, traffic / 2e11)
    energy_j = 2e-12 * flop + 1e-10 * traffic + 15 * time_s
    return flop, traffic, time_s, energy_j * np.exp(noise * rng.standard_normal(40))


@pytest.mark.parametrize(("noise", "tolerance"), [(0.0, 1e-6), (0.02, 0.2)])
def test_the_fit_finds_the_coefficients_that_made_the_measurements(noise, tolerance):
    found = fit_energy(*kernels(noise))
    np.testing.assert_allclose(found, (2e-12, 1e-10, 15), rtol=tolerance)


def test_no_fitted_coefficient_is_negative():
    flop, traffic, time_s, _ = kernels(0)
    assert min(fit_energy(flop, traffic, time_s, 10 * time_s)) >= 0


def test_kernels_that_are_all_alike_are_refused():
    flop, traffic, time_s, energy_j = (values[:1].repeat(5) for values in kernels(0))
    with pytest.raises(InvalidInput, match="more intensities"):
        fit_energy(flop, traffic, time_s, energy_j)
    with pytest.raises(InvalidInput, match="at least 3"):
        fit_energy(flop[:2], traffic[:2], time_s[:2], energy_j[:2])


def test_a_number_format_has_the_peak_of_its_own_units_and_the_same_memory():
    maxn = ModeArrays.of([BOARD.space.maximum])
    single, half = (board_rooflines(BOARD, maxn, name) for name in ("fp32", "fp16"))
    assert half.peak_flops[0] == pytest.approx(8 * single.peak_flops[0])
    assert half.peak_bandwidth[0] == single.peak_bandwidth[0]
    assert half.time_balance[0] == pytest.approx(208, rel=2e-3)
    busy_w = [float(each.flop_j[0] * each.peak_flops[0]) for each in (single, half)]
    assert busy_w[0] == pytest.approx(busy_w[1])
