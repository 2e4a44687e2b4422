from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.powertrain.kernels import (
    Deviations,
    correlations,
    covariance,
    noise_covariance,
    places,
    rows_of,
)
from powerctl.powertrain.posterior import Posterior, ReferenceColumns, fit_posterior
from powerctl.powertrain.prior import Prior, prior_for
from powerctl.powertrain.reference import load_reference
from powerctl.powertrain.sensitivity import sensitivity

BOARD = load_board("orin-agx")
MODES = BOARD.space.thinned(4).arrays
N = len(MODES.cores)
TIME, POWER = slice(0, N), slice(N, 2 * N)
NONE = ReferenceColumns(np.empty((0, 2, N)), np.empty(0), np.empty(0))


@pytest.fixture(scope="module")
def prior() -> Prior:
    return prior_for(BOARD, "train", False, [load_reference("orin-agx-resnet18-train")])


def conditioned(
    prior: Prior, table: MeasurementTable, columns: ReferenceColumns | None = None
) -> Posterior:
    known = columns or ReferenceColumns(np.empty((0, 2, len(table))), np.empty(0), np.empty(0))
    return fit_posterior(prior, Deviations(), table, 16, known)


def some(table: MeasurementTable, n: int, seed: int = 0) -> MeasurementTable:
    return table.take(np.random.default_rng(seed).choice(len(table), n, replace=False))


def without_columns(n: int) -> np.ndarray:
    return np.empty((0, 2, n))


def drawn(prior: Prior, rng: np.random.Generator) -> MeasurementTable:
    """A table of all modes from the model itself: parameters, process and noise at random."""
    far = rng.multivariate_normal(prior.mean, prior.covariance)
    hardware, signature = prior.model(np.clip(far, *prior.bounds()))
    answer = sensitivity(hardware, signature, MODES, 16, ())
    where = places(hardware, MODES, 16)
    rows = rows_of(where, answer, Deviations().coupling)
    variances = Deviations().variances
    total = covariance(variances, correlations(where, where), rows, rows)
    total += noise_covariance(variances, rows)
    logs = np.concatenate([answer.log_time, answer.log_power])
    time_s, power_w = np.exp(rng.multivariate_normal(logs, total)).reshape(2, -1)
    return MeasurementTable(MODES, None, time_s, power_w)


def test_without_measurements_it_is_the_prior(prior, model_table):
    empty = model_table("resnet18-train").take(np.arange(0))
    posterior = conditioned(prior, empty)
    cost = minibatch_cost(prior.hardware, prior.signature, *MODES, 16)
    mean, variance = posterior.predict(MODES, 16, without_columns(N))
    np.testing.assert_allclose(np.exp(mean), [cost.time_s, cost.power_w], rtol=1e-6)
    answer = sensitivity(prior.hardware, prior.signature, MODES, 16, prior.names)
    for slopes, found in zip((answer.time_slopes, answer.power_slopes), variance, strict=True):
        of_parameters = np.einsum("pn,pq,qn->n", slopes, prior.covariance, slopes)
        assert np.all(found > 0.99 * of_parameters)


def test_it_is_the_gaussian_process_whose_covariance_is_the_sum_of_all_parts(prior, model_table):
    """The mean by the textbook's formula, around the parameters that were found."""
    table = some(model_table("mobilenetv3-train", noise=(0.03, 0.02)), 6)
    posterior = conditioned(prior, table)
    model = prior.model(posterior.log_values)
    both = ModeArrays(*(np.concatenate(pair) for pair in zip(table.modes, MODES, strict=True)))
    n = len(both.cores)
    answer = sensitivity(*model, both, 16, prior.names)
    where = places(model[0], both, 16)
    rows = rows_of(where, answer, Deviations().coupling)
    slopes = np.hstack([answer.time_slopes, answer.power_slopes])
    total = covariance(posterior.variances, correlations(where, where), rows, rows)
    total += slopes.T @ prior.covariance @ slopes
    base = np.concatenate([answer.log_time, answer.log_power])
    base += (prior.mean - posterior.log_values) @ slopes
    seen = np.r_[0 : len(table), n : n + len(table)]
    new = np.setdiff1d(np.arange(2 * n), seen)
    noise = noise_covariance(posterior.variances, rows)[np.ix_(seen, seen)]
    noise += np.diag(posterior.outliers)
    weights = np.linalg.inv(total[np.ix_(seen, seen)] + noise)
    gain = total[np.ix_(new, seen)] @ weights
    measured = np.log(np.concatenate([table.time_s, table.power_w]))
    mean = base[new] + gain @ (measured - base[seen])
    left = total[np.ix_(new, new)] - gain @ total[np.ix_(seen, new)]
    found, _ = posterior.predict(MODES, 16, without_columns(N))
    joint, _ = posterior.joint(MODES, 16, without_columns(N))
    np.testing.assert_allclose(found.ravel(), mean, atol=2e-4)
    scale = np.repeat(posterior.scales, N)
    np.testing.assert_allclose(
        joint / np.outer(scale, scale), left, atol=2e-3 * np.diag(left).max()
    )


def test_the_variance_of_a_new_measurement_is_the_joint_ones_and_its_noise(prior, model_table):
    posterior = conditioned(prior, some(model_table("lstm-train", noise=(0.02, 0.01)), 20))
    _, variance = posterior.predict(MODES, 16, without_columns(N))
    joint, noise = posterior.joint(MODES, 16, without_columns(N))
    np.testing.assert_allclose(variance.ravel(), np.diag(joint) + noise, rtol=1e-3)
    np.testing.assert_allclose(joint, joint.T, atol=1e-6)
    assert np.all(noise > 0)


@pytest.mark.studies
def test_intervals_cover_what_the_model_itself_draws(prior):
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(8):
        table = drawn(prior, rng)
        measured = rng.choice(N, 25, replace=False)
        mean, variance = conditioned(prior, table.take(measured)).predict(
            MODES, 16, without_columns(N)
        )
        apart = (np.log([table.time_s, table.power_w]) - mean) / np.sqrt(variance)
        inside.append(np.delete(np.abs(apart) < 1.645, measured, axis=1).mean(axis=1))
    time, power = np.mean(inside, axis=0)
    assert 0.8 < time < 0.99 and 0.8 < power < 0.99


def promised(prior: Prior, table: MeasurementTable, fitted: Posterior) -> float:
    """What the best step within the bounds still gains, of twice the logarithm of the density."""
    answer = sensitivity(*prior.model(fitted.log_values), table.modes, 16, prior.names)
    where = places(prior.hardware, table.modes, 16)
    rows = rows_of(where, answer, Deviations().coupling)
    total = covariance(fitted.variances, correlations(where, where), rows, rows)
    total += noise_covariance(fitted.variances, rows) + np.diag(fitted.outliers)
    whitened = np.linalg.inv(np.linalg.cholesky(total))
    of_prior = np.linalg.cholesky(np.linalg.inv(prior.covariance)).T
    logs = np.concatenate([answer.log_time, answer.log_power])
    misfit = np.log(np.concatenate([table.time_s, table.power_w])) - logs
    slopes = np.hstack([answer.time_slopes, answer.power_slopes]).T
    target = np.concatenate([whitened @ misfit, of_prior @ (prior.mean - fitted.log_values)])
    lowest, highest = prior.bounds()
    slack = 1e-9  # lsq_linear wants room
    best = lsq_linear(
        np.vstack([whitened @ slopes, of_prior]),
        target,
        (lowest - fitted.log_values - slack, highest - fitted.log_values + slack),
        tol=1e-12,
        max_iter=1000,
    )
    return float(target @ target - 2 * best.cost)


@pytest.mark.parametrize("seed", range(6))
def test_a_fit_ends_where_no_step_within_the_bounds_promises_a_gain(prior, seed):
    """With workloads that no reference resembles, several parameters are held at their bounds."""
    rng = np.random.default_rng(seed)
    unlike = replace(prior, covariance=prior.covariance + np.diag(np.full(len(prior.mean), 0.5)))
    table = some(drawn(unlike, rng), 50, seed)
    fitted = conditioned(prior, table)
    lowest, highest = prior.bounds()
    assert np.all((lowest <= fitted.log_values) & (fitted.log_values <= highest))
    assert promised(prior, table, fitted) < 0.1


def test_an_outlier_gets_noise_of_its_own_and_no_other_row_does(prior, model_table):
    table = some(model_table("mobilenetv3-train", noise=(0.005, 0.005)), 30)
    table.time_s[4] *= 1.6
    outliers = conditioned(prior, table).outliers
    assert outliers[4] > 0.05
    assert np.count_nonzero(outliers > 0.01) == 1


def test_leaving_a_row_out_tells_how_wrong_it_is(prior, model_table):
    table = some(model_table("mobilenetv3-train", noise=(0.005, 0.005)), 30)
    table.power_w[7] *= 1.3
    error = conditioned(prior, table).loo_error
    assert error.shape == (2, 30)
    assert error[1, 7] == pytest.approx(np.log(1.3), abs=0.05)
    assert np.median(np.abs(error)) < 0.02


def test_leaving_a_row_out_is_what_a_fit_to_the_others_says(prior, model_table):
    table = some(model_table("mobilenetv3-train", noise=(0.02, 0.01)), 25)
    error = conditioned(prior, table).loo_error
    apart = []
    for row in range(0, 25, 3):
        others = conditioned(prior, table.take(np.delete(np.arange(25), row)))
        mean, _ = others.predict(table.modes.take([row]), 16, without_columns(1))
        measured = np.log([table.time_s[row], table.power_w[row]])
        apart.append(error[:, row] - (measured - mean[:, 0]))
    assert np.median(np.abs(apart)) < 0.003


def test_a_glitch_in_a_mode_is_left_out_with_all_batch_sizes_of_it(model_table):
    """A mode that was not in force is wrong with each of them: none may vouch for the others."""
    sizes = (1, 16, 64)
    whole = model_table("mobilenetv3-infer", batch_sizes=sizes, noise=(0.01, 0.01))
    modes = np.random.default_rng(0).choice(len(whole) // 3, 15, replace=False)
    table = whole.take(np.concatenate([modes + k * (len(whole) // 3) for k in range(3)]))
    table.time_s[[4, 19, 34]] *= 3
    infer = prior_for(BOARD, "infer", True, [load_reference("orin-agx-resnet50-infer")])
    none = ReferenceColumns(np.empty((0, 2, len(table))), np.empty(0), np.empty(0))
    fitted = fit_posterior(infer, Deviations(), table, table.batch_size, none)
    apart = np.abs(fitted.loo_error / fitted.loo_std)
    assert np.all(apart[0, [4, 19, 34]] > 4)
    assert np.median(apart) < 1.5


def test_noise_adapts_to_the_measurements(prior, model_table):
    quiet, loud = (
        conditioned(prior, some(model_table("resnet18-train", noise=(x, x)), 80))
        for x in (0.002, 0.06)
    )
    expected = Deviations().variances
    _, of_quiet = quiet.joint(MODES, 16, without_columns(N))
    _, of_loud = loud.joint(MODES, 16, without_columns(N))
    assert np.all(quiet.variances[[0, 1]] < expected[[0, 1]])
    assert np.all(of_loud > 3 * of_quiet)


def test_a_few_measurements_say_nothing_about_widths(prior, model_table):
    posterior = conditioned(prior, some(model_table("resnet18-train", noise=(0.1, 0.1)), 7))
    np.testing.assert_array_equal(posterior.variances, Deviations().variances)


def test_a_known_deviation_counts_as_much_as_the_measurements_show(prior, model_table):
    table = model_table("resnet18-train", per_axis=4)
    shape = np.zeros((1, 2, N))
    shape[0, 0] = 0.1 * np.sign(np.random.default_rng(0).standard_normal(N))
    table = MeasurementTable(MODES, None, table.time_s * np.exp(0.8 * shape[0, 0]), table.power_w)
    measured = np.arange(0, N, 8)
    columns = ReferenceColumns(shape[:, :, measured], np.array([0.5]), np.array([0.5]))
    posterior = conditioned(prior, table.take(measured), columns)
    assert posterior.factors[0] == pytest.approx(0.8, abs=0.1)
    mean, _ = posterior.predict(MODES, 16, shape)
    assert np.median(np.abs(mean[0] - np.log(table.time_s))) < 0.02


def test_base_and_residual_are_the_prediction_without_known_deviations(prior, model_table):
    posterior = conditioned(prior, some(model_table("mobilenetv3-train", noise=(0.02, 0.01)), 40))
    mean, _ = posterior.predict(MODES, 16, without_columns(N))
    parts = posterior.base(MODES, 16) + posterior.residual(MODES, 16)
    np.testing.assert_allclose(parts, mean, atol=1e-5)
