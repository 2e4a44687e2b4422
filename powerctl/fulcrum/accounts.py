"""Accounts of an interleaver: what became of requests, turns and the device's time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Account:
    """What became of a service's requests, or of a training job's wish to run.

    At any time, `arrived` is `settled` and what is queued or runs. For training, `arrived` and the
    refusals stay 0 and `answered` counts minibatches.

    Attributes
    ----------
    arrived, answered, within : int
        Requests that came; that were answered; that were answered by their deadline.
    rejected_late, rejected_full : int
        Refused, as they could not be met or found the queue full.
    withdrawn : int
        Taken back, or lost with a turn that was abandoned.
    turns, abandoned : int
        That ended well, and that did not.
    busy_s : float
        Device time of both.
    held : int
        Decisions at which training was wanted and not safe.
    """

    arrived: int = 0
    answered: int = 0
    within: int = 0
    rejected_late: int = 0
    rejected_full: int = 0
    withdrawn: int = 0
    turns: int = 0
    abandoned: int = 0
    busy_s: float = 0.0
    held: int = 0

    @property
    def refused(self) -> int:
        """Requests refused, for whatever reason."""
        return self.rejected_late + self.rejected_full

    @property
    def settled(self) -> int:
        """Requests of which nothing is to come any more."""
        return self.answered + self.refused + self.withdrawn
