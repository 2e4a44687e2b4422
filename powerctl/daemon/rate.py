"""A limit on how often something may happen."""

from __future__ import annotations


class TokenBucket:
    """So many at once, and so many a second in the long run.

    Parameters
    ----------
    per_s : float
        In the long run.
    at_once : float
        After a rest.
    """

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s = per_s
        self._at_once = self._tokens = at_once
        self._counted_s = 0.0

    def take(self, now_s: float) -> float:
        """Take one; returns the seconds to wait until it was due, 0 if it is."""
        gained = (now_s - self._counted_s) * self._per_s
        self._tokens = min(self._at_once, self._tokens + gained) - 1
        self._counted_s = now_s
        return max(0.0, -self._tokens / self._per_s)
