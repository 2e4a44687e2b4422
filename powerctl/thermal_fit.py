"""A board's thermal model and idle power, found from a log of its power and temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from powerctl.modes import FloatArray
from powerctl.power_log import PowerLog
from powerctl.statistics import Estimate

_NORMAL = 1.96  # standard errors in a 95 % interval
_APART = 1.25  # of the means of busy and idle power, for the two to be told apart
_SURE = 0.5  # of a value, that its interval may reach to either side


@dataclass(frozen=True)
class ThermalFit:
    """Thermal resistance, time constant and surroundings that explain a log, with intervals."""

    k_per_w: Estimate
    tau_s: Estimate
    ambient_c: Estimate

    @property
    def is_sure(self) -> bool:
        """Whether the log tells them: power and temperature must have moved for that."""
        told = (self.k_per_w, self.tau_s)
        return all(one.half_width < _SURE * one.mean for one in told)


def fit_thermal(log: PowerLog) -> ThermalFit:
    """The first-order model whose temperatures come nearest to those of a log.

    The temperatures of the whole log are predicted from its power and one first temperature, and
    not from sample to sample: noise of the sensor would shorten the time constant.
    """
    from scipy.optimize import least_squares

    def errors(parameters: FloatArray) -> FloatArray:
        start_c, ambient_c, log_k, log_tau = parameters
        heat_c = math.exp(log_k) * log.power_w
        return (
            _predicted_c(log.time_s, ambient_c + heat_c, start_c, math.exp(log_tau)) - log.celsius
        )

    span_s = float(log.time_s[-1]) or 1.0
    start = (log.celsius[0], float(log.celsius.min()) - 10, 0.0, math.log(span_s / 10))
    bounds = ([-100, -100, -7, 0], [200, 150, 5, math.log(10 * span_s + 10)])
    found = least_squares(errors, np.clip(start, *bounds), bounds=bounds, x_scale=(10, 10, 1, 1))
    errors_of = _standard_errors(found.jac, found.fun)
    _, ambient_c, log_k, log_tau = found.x
    n = len(log.time_s)
    return ThermalFit(
        k_per_w=_exponential(log_k, errors_of[2], n),
        tau_s=_exponential(log_tau, errors_of[3], n),
        ambient_c=_interval(ambient_c, errors_of[1], n),
    )


def idle_power(log: PowerLog) -> Estimate | None:
    """Mean power of a log's idle stretches, where idle and busy can be told apart; else None."""
    power_w, split_w = log.power_w, float(log.power_w.mean())
    for _ in range(50):  # two means; they settle within a few steps
        idle = power_w <= split_w
        if idle.all() or not idle.any():
            return None
        between_w = float(power_w[idle].mean() + power_w[~idle].mean()) / 2
        if between_w == split_w:
            break
        split_w = between_w
    if power_w[~idle].mean() < _APART * power_w[idle].mean():
        return None
    own = idle & np.append(True, idle[:-1]) & np.append(idle[1:], True)  # power follows with a lag
    if not own.any():
        return None
    quiet_w = power_w[own]
    middle_w = float(np.median(quiet_w))
    error_w = 1.2533 * float(quiet_w.std()) / math.sqrt(len(quiet_w))  # of a median
    return _interval(middle_w, error_w, len(quiet_w))


def _predicted_c(
    time_s: FloatArray, steady_c: FloatArray, start_c: float, tau_s: float
) -> FloatArray:
    """Temperatures at some times, where each sample's power has held since the one before."""
    kept = np.exp(-np.diff(time_s) / tau_s).tolist()
    found = [celsius := float(start_c)]
    for share, towards_c in zip(kept, steady_c[1:].tolist(), strict=True):
        found.append(celsius := towards_c + (celsius - towards_c) * share)
    return np.array(found)


def _standard_errors(jacobian: FloatArray, residuals: FloatArray) -> FloatArray:
    """Of the parameters of a fit whose errors follow each other: fewer of them count."""
    n, k = jacobian.shape
    spread = residuals - residuals.mean()
    square = float(spread @ spread)
    alike = float(spread[1:] @ spread[:-1]) / square if square else 0.0
    alike = min(max(alike, 0.0), 0.999)
    variance = float(residuals @ residuals) / max(n - k, 1) * (1 + alike) / (1 - alike)
    covariance = variance * np.linalg.pinv(jacobian.T @ jacobian)
    return np.asarray(np.sqrt(np.maximum(np.diag(covariance), 0.0)))


def _interval(mean: float, error: float, n: int) -> Estimate:
    return Estimate(float(mean), float(mean - _NORMAL * error), float(mean + _NORMAL * error), n)


def _exponential(log_mean: float, error: float, n: int) -> Estimate:
    low, high = (math.exp(min(log_mean + s * _NORMAL * error, 50)) for s in (-1, 1))
    return Estimate(math.exp(log_mean), low, high, n)
