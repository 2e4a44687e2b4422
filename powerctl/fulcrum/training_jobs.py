"""Training jobs that take turns: which of them want one, and who has had the least time."""

from __future__ import annotations

from powerctl.errors import UnknownName
from powerctl.fulcrum.durations import LearnedTimes


class TrainingJobs:
    """The training jobs of an interleaver, their times, and fairness among them."""

    def __init__(self) -> None:
        self._times: dict[str, LearnedTimes] = {}
        self._had_s: dict[str, float] = {}  # device time, for fairness
        self._wanted: dict[str, None] = {}  # a set that keeps its order

    def __contains__(self, name: str) -> bool:
        return name in self._times

    @property
    def names(self) -> tuple[str, ...]:
        """All jobs."""
        return tuple(self._times)

    def times(self, name: str) -> LearnedTimes:
        """The times of a job; raises `UnknownName`."""
        if name not in self._times:
            raise UnknownName("training job", name, self._times)
        return self._times[name]

    def add(self, name: str, times: LearnedTimes) -> None:
        """Take in a job; it wants nothing yet."""
        self._times[name] = times
        self._had_s[name] = 0.0

    def remove(self, name: str) -> None:
        """Forget a job, if it is one."""
        for known in (self._times, self._had_s, self._wanted):
            known.pop(name, None)

    def want(self, name: str, wanted: bool) -> None:
        """Whether a job has a minibatch to run."""
        self.times(name)
        if not wanted:
            self._wanted.pop(name, None)
        elif name not in self._wanted:
            # who comes back does not make up for the time in which it wanted nothing
            floor_s = min((self._had_s[other] for other in self._wanted), default=0.0)
            self._had_s[name] = max(self._had_s[name], floor_s)
            self._wanted[name] = None

    def wanting(self) -> list[str]:
        """The jobs that want a turn, the one that has had least time first."""
        return sorted(self._wanted, key=self._had_s.__getitem__)

    def had(self, name: str, time_s: float) -> None:
        """A job has had the device."""
        self._had_s[name] += time_s
