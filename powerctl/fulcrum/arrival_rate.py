"""How often a request that waits is joined by another: whether waiting for a fuller batch pays."""

from __future__ import annotations

import math

_FORGET = 1 / 64


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
