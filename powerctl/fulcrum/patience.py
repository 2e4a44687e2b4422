"""A second chance for jobs that seem too slow to be run, and so are never measured again."""

from __future__ import annotations

import math

from powerctl.fulcrum.durations import LearnedTimes

_FIRST_S = 5.0
_MOST_S = 640.0


class Backoff:
    """How long a job's learned times may keep it from running.

    Each time twice as long, until a turn has taken no longer than planned.
    """

    def __init__(self) -> None:
        self._since_s = math.nan
        self._patience_s = _FIRST_S

    def ran(self, now_s: float, as_planned: bool) -> None:
        """The job had a turn."""
        self._since_s = now_s
        if as_planned:
            self._patience_s = _FIRST_S

    def reconsider(self, times: LearnedTimes, now_s: float) -> bool:
        """Return to the plan if what was learned has kept the job waiting for too long.

        Parameters
        ----------
        times : LearnedTimes
            Of the job, which cannot be run by them at present.
        now_s : float
            The present.

        Returns
        -------
        bool
            Whether the times have changed.
        """
        if math.isnan(self._since_s):
            self._since_s = now_s
        if now_s - self._since_s < self._patience_s or times.safe_s() <= times.planned_safe_s():
            return False
        self._patience_s = min(2 * self._patience_s, _MOST_S)
        self._since_s = now_s
        times.forget()
        return True
