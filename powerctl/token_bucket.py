"""A limit on how often something may happen: a token bucket."""

from __future__ import annotations


class TokenBucket:
    """So many at once, and so many a second in the long run.

    Parameters
    ----------
    per_s : float
        In the long run.
    at_once : float
        After a rest.
    now_s : float
        When it is made; it begins full.
    """

    def __init__(self, per_s: float, at_once: float, now_s: float = 0.0) -> None:
        self._per_s = per_s
        self._at_once = self._tokens = at_once
        self._counted_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until one more is due, 0 if it is."""
        gained = (now_s - self._counted_s) * self._per_s
        self._tokens = min(self._at_once, self._tokens + gained)
        self._counted_s = now_s
        return max(0.0, (1 - self._tokens) / self._per_s)

    def take(self, now_s: float) -> float:
        """Take one, due or not; returns the seconds until it is."""
        wait_s = self.wait_s(now_s)
        self._tokens -= 1
        return wait_s
