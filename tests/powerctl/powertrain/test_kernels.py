from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process.kernels import Matern

from powerctl.boards import board_names, load_board
from powerctl.modes import ModeArrays
from powerctl.powertrain.kernels import (
    COMPONENTS,
    NOISES,
    Deviations,
    Rows,
    correlations,
    covariance,
    matern,
    noise_covariance,
    noise_of,
    places,
    rows_of,
    variance_of,
)
from powerctl.powertrain.sensitivity import sensitivity
from powerctl.workload import load_workload

SMOOTH = tuple(name for name in COMPONENTS if name not in NOISES)
USUAL = Deviations().variances
AGX = load_board("orin-agx")
Batch = np.ndarray


def rows_at(modes: ModeArrays, sizes: Batch, board: str = "orin-agx") -> Rows:
    """Rows of ResNet-50 inference, whose signature has fixed parts too."""
    hardware = load_board(board).hardware
    signature = load_workload("resnet50-infer").signature
    answer = sensitivity(hardware, signature, modes, sizes, ())
    return rows_of(places(hardware, modes, sizes), answer, Deviations().coupling)


def between(variances: np.ndarray, one: Rows, other: Rows) -> np.ndarray:
    return covariance(variances, correlations(one.places, other.places), one, other)


def only(*names: str) -> np.ndarray:
    """Variance 1 of some components and 0 of the others."""
    return np.array([float(name in names) for name in COMPONENTS])


@st.composite
def somewhere(draw, n: int = 20) -> tuple[ModeArrays, Batch, str]:
    """Up to `n` rows on a board, modes and batch sizes more than once among them."""
    board = draw(st.sampled_from(board_names()))
    space = load_board(board).space
    index = st.integers(0, len(space) - 1)
    at = draw(st.lists(index, min_size=1, max_size=n))
    sizes = draw(st.lists(st.sampled_from([1, 2, 16, 64]), min_size=len(at), max_size=len(at)))
    return space.arrays.take(at), np.array(sizes), board


@given(somewhere(), st.lists(st.floats(0, 1), min_size=len(USUAL), max_size=len(USUAL)))
def test_a_covariance_is_symmetric_and_positive_semi_definite(where, variances):
    rows = rows_at(*where)
    total = between(np.array(variances), rows, rows)
    np.testing.assert_allclose(total, total.T, atol=1e-12)
    assert np.linalg.eigvalsh(total).min() > -1e-8 * max(1.0, np.trace(total))
    noise = noise_covariance(np.array(variances), rows)
    assert np.linalg.eigvalsh(noise).min() > -1e-8 * max(1.0, np.trace(noise))


@given(somewhere())
def test_places_are_fully_correlated_with_themselves_and_less_with_others(where):
    modes, sizes, board = where
    at = places(load_board(board).hardware, modes, sizes)
    for correlation in correlations(at, at).values():
        np.testing.assert_allclose(np.diag(correlation), 1.0)
        assert np.all((correlation >= 0) & (correlation <= 1 + 1e-12))


@given(somewhere(), somewhere())
def test_the_covariance_of_two_sets_is_the_block_of_their_joint_covariance(one, other):
    board, n = one[2], len(one[1])
    both = ModeArrays(*(np.concatenate(pair) for pair in zip(one[0], other[0], strict=True)))
    sizes = np.concatenate([one[1], other[1]])
    total = between(USUAL, *[rows_at(both, sizes, board)] * 2)
    joint = total.reshape(2, len(sizes), 2, len(sizes))
    cross = between(USUAL, rows_at(*one), rows_at(other[0], other[1], board))
    block = joint[:, :n, :, n:].reshape(cross.shape)
    np.testing.assert_allclose(cross, block, atol=1e-12)


@given(somewhere())
def test_variances_are_the_diagonal_of_the_covariance(where):
    rows = rows_at(*where)
    diagonal = np.diag(between(USUAL, rows, rows))
    np.testing.assert_allclose(variance_of(USUAL, rows).ravel(), diagonal, rtol=1e-10)


def test_the_kernel_is_materns_of_smoothness_five_halves():
    apart = np.linspace(-3, 3, 13)
    expected = Matern(length_scale=0.8, nu=2.5)(apart[:, None], np.zeros((1, 1)))[:, 0]
    np.testing.assert_allclose(matern(apart, 0.8), expected, rtol=1e-10)


def test_places_are_octaves_below_the_boards_top_and_repeat_one_batch_size():
    modes = ModeArrays.of([AGX.space.maximum, AGX.space.minimum])
    at = places(AGX.hardware, modes, 16)
    octaves = np.array([values[i] for values, i in zip(at.values, at.at, strict=True)])
    top = [np.log2(12), 0, 0, 0, 4]
    low, high = AGX.space.minimum, AGX.space.maximum
    below = [np.log2(a / b) for a, b in zip(low.values[1:], high.values[1:], strict=True)]
    np.testing.assert_allclose(octaves[:, 0], top, atol=1e-12)
    np.testing.assert_allclose(octaves[:, 1], [np.log2(low.cores), *below, 4], atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_smooth_deviations_are_less_alike_the_further_modes_are_apart(axis):
    ladder = AGX.space.axes[axis]
    line = ModeArrays(*(np.full(len(ladder), v) for v in AGX.space.maximum.values))
    line = line._replace(**{ModeArrays._fields[axis]: np.array(ladder)})
    rows = rows_at(line, np.full(len(ladder), 16))
    power = between(only("power"), rows, rows)[len(ladder) :, len(ladder) :]
    assert np.all(np.diff(power[-1]) > 0)


@pytest.mark.parametrize("name", ["flop", "activity"])
def test_deviations_of_batch_sizes_are_the_same_in_all_modes(name):
    modes = AGX.space.thinned(2).arrays
    n = len(modes.cores)
    rows = rows_at(modes, np.full(n, 16))
    total = between(only(name), rows, rows)
    power_std = np.sqrt(variance_of(only(name), rows)[1])
    np.testing.assert_allclose(np.abs(total[n:, n:]), np.outer(power_std, power_std), atol=1e-12)


def test_time_deviates_most_where_host_and_gpu_bind_together():
    modes = AGX.space.thinned(6).arrays
    hardware, signature = AGX.hardware, load_workload("resnet50-infer").signature
    host = sensitivity(hardware, signature, modes, 64, ()).host_share
    variance = variance_of(only("overlap"), rows_at(modes, 64))[0]
    assert np.abs(host[variance.argmax()] - 0.5) < 0.1
    np.testing.assert_allclose(variance, 4 * host * (1 - host), atol=1e-9)


def test_power_falls_where_time_rises():
    rows = rows_at(AGX.space.thinned(2).arrays, 16)
    n = len(AGX.space.thinned(2))
    assert np.all(np.diag(between(only("time"), rows, rows)[:n, n:]) < 0)


def test_noise_is_each_rows_own_even_of_the_same_mode_twice():
    modes = ModeArrays.of([AGX.space.maximum] * 2)
    blocks = noise_covariance(only(*NOISES), rows_at(modes, 16)).reshape(2, 2, 2, 2)
    for mine in range(2):
        for theirs in range(2):
            block = blocks[mine, :, theirs]
            assert np.all(block[~np.eye(2, dtype=bool)] == 0)
            assert block[0, 0] == block[1, 1] != 0


@pytest.mark.parametrize("name", NOISES)
def test_noise_of_a_new_measurement_is_as_wide_as_students_t_needs(name):
    rows = rows_at(AGX.space.thinned(2).arrays, 16)
    diagonal = np.diag(noise_covariance(only(name), rows))
    wider = 2.353 / 1.645  # 95 % quantiles of Student's t, three degrees of freedom, and normal
    np.testing.assert_allclose(noise_of(only(name), rows).ravel(), wider**2 * diagonal, rtol=5e-3)


def test_noise_and_smooth_deviations_are_apart():
    rows = rows_at(AGX.space.thinned(2).arrays, 16)
    assert not between(only(*NOISES), rows, rows).any()
    assert not variance_of(only(*NOISES), rows).any()
    assert not noise_covariance(only(*SMOOTH), rows).any()
    assert not noise_of(only(*SMOOTH), rows).any()


def test_the_hosts_noise_counts_as_far_as_the_host_binds():
    slow_host = AGX.space.minimum
    fast_host = AGX.space.maximum
    bound, free = (
        rows_at(ModeArrays.of([mode]), 64)
        for mode in (
            type(slow_host)(*slow_host.values[:2], *fast_host.values[2:]),
            type(slow_host)(*fast_host.values[:2], *slow_host.values[2:]),
        )
    )
    host_bound, gpu_bound = (noise_of(only("host_noise"), rows)[0, 0] for rows in (bound, free))
    assert host_bound > 10 * gpu_bound


def test_variances_are_squares_in_the_order_of_the_components():
    widths = {name: 0.1 * (i + 1) for i, name in enumerate(COMPONENTS)}
    squares = Deviations(**widths, coupling=3.0).variances
    np.testing.assert_allclose(squares, [w**2 for w in widths.values()])
