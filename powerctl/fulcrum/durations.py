"""How long a minibatch of a job takes, by batch size: planned, then learned on line.

    log t(n) = log plan(n) + level + own(n) + e,   e ~ N(0, s^2)

    n       samples of the minibatch
    plan    expected seconds (`BatchTimes`)
    level   what all sizes have in common: this device, its temperature
    own     what one size has for itself
    s       `spread`; plan e^(level + own + z s) is safe, with z the normal quantile of `quantile`

A measurement's error moves level and own by the gain 1 / (weight + count), at least 1/64.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from itertools import accumulate
from statistics import NormalDist

from powerctl.errors import InvalidInput

QUANTILE = 0.99  # of a time, for safety
SPREAD = 0.05  # of log time, as measured on Jetsons
_ROUNDING_S = 1e-9
_SLOWEST_GAIN = 1 / 64  # the estimates forget what is more than some 64 minibatches old
_CLIP_DEVIATIONS = 4.0
_CLIP_FLOOR = 0.1  # of log time: a deviation below 10 % is never called an outlier
_SHIFT_AFTER = 3  # so many outliers on the same side in a row are a new level
_FIRST_S = 5.0
_MOST_S = 640.0  # seven doublings


class BatchTimes:
    """Time of a batch of any size, between sizes whose time is known.

    Linear between neighbours. Below the smallest known size it is the time of that size; above
    the largest, so many batches of the largest as are needed, one after another. A batch never
    counts with more time than a larger one, to whose size it can be padded.

    Parameters
    ----------
    time_s : mapping of int to float
        Seconds by batch size.

    Raises
    ------
    InvalidInput
        If there is none, or a size below 1, or a time that is not positive and finite.
    """

    def __init__(self, time_s: Mapping[int, float]) -> None:
        known = sorted(time_s.items())
        if not known or known[0][0] < 1:
            raise InvalidInput(f"times by batch size need sizes from 1 on, got {dict(time_s)}")
        if any(not (math.isfinite(t) and t > 0) for _, t in known):
            raise InvalidInput(f"times of batches must be positive seconds, got {dict(time_s)}")
        self.sizes = tuple(size for size, _ in known)
        descending_s = accumulate((float(t) for _, t in reversed(known)), min)
        self._time_s = tuple(descending_s)[::-1]
        self._cache = dict(zip(self.sizes, self._time_s, strict=True))

    @property
    def largest(self) -> int:
        """The largest batch size with a known time."""
        return self.sizes[-1]

    @property
    def known(self) -> dict[int, float]:
        """The times that were given."""
        return dict(zip(self.sizes, self._time_s, strict=True))

    def __call__(self, size: int) -> float:
        """Seconds of `size` requests; 0 for none."""
        if size not in self._cache:
            self._cache[size] = self._between(size)
        return self._cache[size]

    def _between(self, size: int) -> float:
        if size <= 0:
            return 0.0
        if size > self.largest:
            whole, rest = divmod(size, self.largest)
            return whole * self._time_s[-1] + self(rest)
        above = bisect_left(self.sizes, size)
        if above == 0:
            return self._time_s[0]
        low, high = self.sizes[above - 1], self.sizes[above]
        share = (size - low) / (high - low)
        return self._time_s[above - 1] * (1 - share) + self._time_s[above] * share


class LearnedTimes:
    """The times of one job: a plan, corrected by what was measured.

    `level` and `own` are means that forget, and so is the spread. A measurement beyond
    four deviations counts as one at four deviations (a page fault teaches nothing), unless three
    in a row lie on the same side: then the level moves there at once.

    Parameters
    ----------
    plan : mapping of int to float
        Expected seconds by batch size.
    quantile : float
        What `safe_s` covers, between 0.5 and 1.
    spread : float
        Standard deviation of log time to begin with; 0 if the plan is exact.
    weight : float
        How many measurements the plan is worth; below 1 for a mere guess.
    """

    def __init__(
        self,
        plan: Mapping[int, float],
        *,
        quantile: float = QUANTILE,
        spread: float = SPREAD,
        weight: float = 8.0,
    ) -> None:
        if not 0.5 <= quantile < 1:
            raise InvalidInput(f"a safety quantile is from 0.5 to below 1, got {quantile:g}")
        if not spread >= 0 or not weight >= 0:
            raise InvalidInput(f"spread and weight are not negative, got {spread:g}, {weight:g}")
        self._deviations = NormalDist().inv_cdf(quantile)
        self._spread = spread
        self._variance = spread**2
        self._weight = weight
        self._plan = BatchTimes(plan)
        self._clear()

    def _clear(self) -> None:
        self._unlearned: bool = True
        self._level: float = 0.0
        self._own: dict[int, float] = {}
        self._seen: list[int] = []  # the sizes in `_own`, ascending
        self._times: dict[int, int] = {}
        self._count = 0
        self._outliers = 0
        self._safe: dict[int, float] = {}

    @property
    def largest(self) -> int:
        """The largest batch size of the plan."""
        return self._plan.largest

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes of the plan, ascending."""
        return self._plan.sizes

    @property
    def spread(self) -> float:
        """Standard deviation of log time."""
        return math.sqrt(self._variance)

    def expected_s(self, size: int = 1) -> float:
        """The middle of the distribution of a batch's time."""
        if self._unlearned:  # exactly the plan, without rounding
            return self._plan(size)
        return self._plan(size) * math.exp(self._level + self._own_of(size))

    def safe_s(self, size: int = 1) -> float:
        """The safety quantile of a batch's time; 0 for no request."""
        if size not in self._safe:
            self._safe[size] = self.expected_s(size) * math.exp(self._deviations * self.spread)
        return self._safe[size]

    def largest_within(self, time_s: float, most: int) -> int:
        """The largest batch, of at most so many requests, that safely ends within a time.

        Parameters
        ----------
        time_s : float
            Seconds there are.
        most : int
            Requests there are.

        Returns
        -------
        int
            0 if not even one request can be answered in that time.
        """
        low, high = 0, min(most, self.largest)
        if high > 0 and self.safe_s(high) <= time_s + _ROUNDING_S:
            return high
        while high - low > 1:
            middle = (low + high) // 2
            if self.safe_s(middle) <= time_s + _ROUNDING_S:
                low = middle
            else:
                high = middle
        return low

    def planned_safe_s(self, size: int = 1) -> float:
        """The safety quantile of a batch's time by the plan, with the spread of the beginning."""
        return self._plan(size) * math.exp(self._deviations * self._spread)

    def observe(self, size: int, time_s: float) -> None:
        """Learn from a batch that ran.

        Parameters
        ----------
        size : int
            Of the batch.
        time_s : float
            What it took; anything but a positive number is no measurement and is ignored.
        """
        if not (math.isfinite(time_s) and time_s > 0):
            return
        error = math.log(time_s / self.expected_s(size))
        if abs(error) < 1e-12:  # rounding
            error = 0.0
        guess = not self._count and self._weight < 1
        error = error if guess else self._clipped(error)
        self._count += 1
        self._variance += self._gain(self._count) * (error**2 - self._variance)
        common = self._gain(self._count) * error
        self._level += common
        if size not in self._own:
            self._own[size] = self._own_of(size)
            insort(self._seen, size)
        times = self._times[size] = self._times.get(size, 0) + 1
        self._own[size] += self._gain(times) * (error - common)
        self._unlearned = self._unlearned and error == 0
        self._safe.clear()

    def replan(self, plan: Mapping[int, float]) -> None:
        """Expect other times, as after a change of power mode; the spread is kept."""
        self._plan = BatchTimes(plan)
        self._clear()

    def forget(self) -> None:
        """Return to the plan and to the spread of the beginning."""
        self._variance = self._spread**2
        self.replan(self._plan.known)

    def _gain(self, count: int) -> float:
        return max(1 / (self._weight + count), _SLOWEST_GAIN)

    def _own_of(self, size: int) -> float:
        if size in self._own or not self._own:
            return self._own.get(size, 0.0)
        above = bisect_left(self._seen, size)
        if above in (0, len(self._seen)):
            return self._own[self._seen[max(above - 1, 0)]]
        low, high = self._seen[above - 1], self._seen[above]
        share = (size - low) / (high - low)
        return self._own[low] * (1 - share) + self._own[high] * share

    def _clipped(self, error: float) -> float:
        """An outlier cut to size, or in full where it is the third in a row."""
        limit = max(_CLIP_DEVIATIONS * self.spread, _CLIP_FLOOR)
        if abs(error) <= limit:
            self._outliers = 0
            return error
        side = 1 if error > 0 else -1
        self._outliers = self._outliers + side if self._outliers * side > 0 else side
        if abs(self._outliers) < _SHIFT_AFTER:
            return side * limit
        self._outliers = 0
        self._level += error
        return 0.0


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
