"""How often requests come, and how often one that waits is joined by another: learned on line.

    g       gap between two arrivals, seconds
    m, q    learned means of g and of g^2, which forget
    1 / m   arrival rate
    D       dispersion, the squared coefficient of variation of the gaps: q / m^2 - 1
    z       standard deviations to provide for

In t seconds at most t/m + z sqrt(D t/m) requests come, and one more: a renewal process's count has
mean t/m and variance D t/m in the long run (Cox 1962). Solved for t, that is when the n-th is due.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_FORGET = 1 / 64  # of what is remembered, with each arrival: some 64 count
_USUAL_DEVIATIONS = 3.0  # above the mean, a gap is still usual
_PRIOR_GAPS = 16  # what the planned rate is worth, in observed gaps between arrivals
_SLOWEST_GAIN = 1 / 64  # of the means' steps, so that they forget likewise
_ROUNDING = 1e-9  # of a request


class JoiningRate:
    """The rate of arrivals while at least one request is there, waiting or running.

    It is the rate at which a batch fills. With arrivals of their own making it is the mean rate;
    where each client sends its next request when it has the answer to the last, it is less: of a
    lone client none comes. Measured by counting, over the time in which it could be seen.

    Parameters
    ----------
    rate_hz : float
        Arrivals expected in a second, worth one of them; 0 if unknown.
    """

    def __init__(self, rate_hz: float) -> None:
        self._joined = 1.0 if rate_hz else 0.0
        self._there_s = 1 / rate_hz if rate_hz else 0.0
        self._last_s = math.nan
        self._there = False

    def rate_hz(self, now_s: float) -> float:
        """Arrivals in a second; 0 if nothing is known."""
        there_s = self._there_s + (now_s - self._last_s if self._there else 0.0)
        if there_s > 0:
            return self._joined / there_s
        return math.inf if self._joined else 0.0

    def arrived(self, now_s: float, there: bool) -> None:
        """A request came; whether another was there."""
        self.seen(now_s, there)
        self._joined = (1 - _FORGET) * self._joined + there
        self._there_s *= 1 - _FORGET
        self._there = True

    def seen(self, now_s: float, there: bool) -> None:
        """Whether one is there from now on."""
        if self._there:
            self._there_s += now_s - self._last_s
        self._last_s, self._there = now_s, there


class _Gaps(NamedTuple):
    """Mean of the gaps between arrivals, and of their squares."""

    mean_s: float
    square: float


class ArrivalRate:
    """How fast requests come, and how irregularly: mean and dispersion of the gaps, learned.

    Dispersion is the squared coefficient of variation of the gaps: 0 for constant arrivals, 1 for
    Poisson (assumed to begin with), above 1 for bursts. A gap that is not over yet counts once it
    is longer than usual: where requests cease to come, what is expected of them fades.
    """

    def __init__(self, rate_hz: float) -> None:
        gap_s = 1 / rate_hz if rate_hz else math.inf
        self._over = self._now = _Gaps(gap_s, 2 * gap_s**2)
        self._weight = _PRIOR_GAPS if rate_hz else 0
        self._count = 0
        self._last_s = math.nan

    @property
    def rate_hz(self) -> float:
        """Arrivals in a second; infinite if all came at one instant."""
        return 1 / self._now.mean_s if self._now.mean_s else math.inf

    @property
    def dispersion(self) -> float:
        """Squared coefficient of variation of the gaps."""
        mean_s, square = self._now
        return max(square / mean_s**2 - 1, 0.0) if 0 < mean_s < math.inf else 1.0

    def arrived(self, now_s: float) -> None:
        """Learn from a request that has come now."""
        gap_s, self._last_s = now_s - self._last_s, now_s
        if gap_s >= 0:  # not the first
            self._over = self._now = self._with(gap_s)
            self._count += 1

    def seen(self, now_s: float) -> None:
        """No other has come by now."""
        gap_s, self._now = now_s - self._last_s, self._over
        usual = 1 + _USUAL_DEVIATIONS * math.sqrt(self.dispersion)
        if gap_s > usual * self._over.mean_s:
            self._now = self._with(gap_s)

    def _with(self, gap_s: float) -> _Gaps:
        mean_s, square = self._over
        if math.isinf(mean_s):
            return _Gaps(gap_s, 2 * gap_s**2)
        gain = max(1 / (self._weight + self._count + 1), _SLOWEST_GAIN)
        return _Gaps(mean_s + gain * (gap_s - mean_s), square + gain * (gap_s**2 - square))

    def most(self, time_s: float, deviations: float) -> float:
        """Upper bound of the arrivals in some time, at least 1: mean plus some deviations."""
        mean = self.rate_hz * time_s
        if math.isinf(deviations) or math.isinf(mean):
            return math.inf
        return math.floor(mean + deviations * math.sqrt(self.dispersion * mean) + _ROUNDING) + 1

    def earliest_s(self, number: int, deviations: float) -> float:
        """Seconds in which `most` grows beyond a number: the next arrival but so many."""
        if not number or math.isinf(deviations) or not self._now.mean_s:
            return 0.0
        spread = deviations * math.sqrt(self.dispersion)
        root = (math.sqrt(spread**2 + 4 * number) - spread) / 2
        return root**2 * self._now.mean_s
