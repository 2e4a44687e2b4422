"""Arrival traces: the times at which requests come, constant or random from a given seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from numpy.random import Generator

from powerctl.errors import InvalidInput

_ROUNDING = 1e-9  # of a request


def constant(rate_hz: float, duration_s: float, start_s: float = 0.0) -> Iterator[float]:
    """One request every 1/rate.

    Parameters
    ----------
    rate_hz : float
        Requests in a second.
    duration_s : float
        Length of the trace.
    start_s : float
        When it begins; the first request comes 1/rate later.

    Yields
    ------
    float
        Ascending times in seconds, up to ``start_s + duration_s``.
    """
    _check(rate_hz, duration_s)
    for i in range(1, int(rate_hz * duration_s + _ROUNDING) + 1):
        yield start_s + i / rate_hz


def poisson(
    rate_hz: float, duration_s: float, rng: Generator, start_s: float = 0.0
) -> Iterator[float]:
    """Independent requests at a constant mean rate."""
    _check(rate_hz, duration_s)
    now_s = start_s + rng.exponential(1 / rate_hz)
    while now_s < start_s + duration_s:
        yield float(now_s)
        now_s += rng.exponential(1 / rate_hz)


def steps(levels: Sequence[tuple[float, float]], rng: Generator) -> Iterator[float]:
    """Poisson arrivals whose rate changes in steps.

    Parameters
    ----------
    levels : sequence of (float, float)
        Rate in requests per second, and how many seconds it holds.
    rng : Generator
        The source of chance.
    """
    start_s = 0.0
    for rate_hz, duration_s in levels:
        yield from poisson(rate_hz, duration_s, rng, start_s)
        start_s += duration_s


def diurnal(
    rate_hz: float, swing: float, period_s: float, duration_s: float, rng: Generator
) -> Iterator[float]:
    """Poisson arrivals whose rate goes up and down like a sine, beginning at the mean.

    Parameters
    ----------
    rate_hz : float
        Mean rate.
    swing : float
        Between 0 and 1: the rate goes from ``(1 - swing)`` to ``(1 + swing)`` times the mean.
    period_s, duration_s : float
        Of the sine and of the trace.
    rng : Generator
        The source of chance.
    """
    if not 0 <= swing <= 1:
        raise InvalidInput(f"the swing of a diurnal load is from 0 to 1, got {swing:g}")

    def rate_at(now_s: float) -> float:
        return rate_hz * (1 + swing * math.sin(2 * math.pi * now_s / period_s))

    return _thinned(rate_at, rate_hz * (1 + swing), duration_s, rng)


def bursts(
    rate_hz: float,
    factor: float,
    burst_s: float,
    pause_s: float,
    duration_s: float,
    rng: Generator,
) -> Iterator[float]:
    """Poisson arrivals that switch at random between a calm and a busy rate.

    Parameters
    ----------
    rate_hz : float
        Mean rate over bursts and pauses.
    factor : float
        The busy rate over the calm one.
    burst_s, pause_s : float
        Mean length of a burst and of the pause after it, both exponential.
    duration_s : float
        Of the trace.
    rng : Generator
        The source of chance.
    """
    _check(rate_hz, duration_s)
    _check(factor, min(burst_s, pause_s))
    calm_hz = rate_hz * (burst_s + pause_s) / (factor * burst_s + pause_s)
    start_s, busy = 0.0, False
    while start_s < duration_s:
        mean_s = burst_s if busy else pause_s
        length_s = min(float(rng.exponential(mean_s)), duration_s - start_s)
        if length_s > 0:
            yield from poisson(calm_hz * (factor if busy else 1), length_s, rng, start_s)
        start_s, busy = start_s + length_s, not busy


def _thinned(
    rate_at: Callable[[float], float], highest_hz: float, duration_s: float, rng: Generator
) -> Iterator[float]:
    """Poisson arrivals of a rate that varies (Lewis and Shedler 1979)."""
    for now_s in poisson(highest_hz, duration_s, rng):
        if rng.random() * highest_hz < rate_at(now_s):
            yield now_s


def _check(rate_hz: float, duration_s: float) -> None:
    if not rate_hz > 0 or not duration_s > 0:
        raise InvalidInput(
            f"a trace needs a positive rate and length, got {rate_hz:g}/s for {duration_s:g} s"
        )
