"""Limits that keep an overloaded agent answering: rates, bytes, and the status of a refusal."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

import grpc

from powerctl.errors import Refused
from wattfed.client.agent.tickets import (
    BROKEN,
    EXPIRED,
    FAILED,
    FULL,
    LATE,
    REMOVED,
    STOPPING,
    TicketRefusal,
)

_MOST_CLIENTS = 4096  # whose rates are remembered; of more, who has been quiet longest is forgotten

STATUS = {
    LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
    FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    REMOVED: grpc.StatusCode.UNAVAILABLE,
    STOPPING: grpc.StatusCode.UNAVAILABLE,
    FAILED: grpc.StatusCode.INTERNAL,
    EXPIRED: grpc.StatusCode.ABORTED,
    BROKEN: grpc.StatusCode.UNAVAILABLE,
}


class CallRefused(Refused):
    """A call that is not answered: with what status, and words for people."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def by(cls, refusal: TicketRefusal) -> CallRefused:
        """The status of what the engine has refused."""
        return cls(STATUS.get(refusal.reason, grpc.StatusCode.UNKNOWN), refusal.message)


class RateLimit:
    """A token bucket for each client.

    Parameters
    ----------
    rate_hz : float
        Tokens that come in a second; 0: no limit.
    burst : float
        Tokens that a bucket holds; by default those of a second, at least one.
    clock : callable
        Seconds.
    """

    def __init__(
        self, rate_hz: float, burst: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate_hz = rate_hz
        self._burst = burst or max(rate_hz, 1.0)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take a token; raises `CallRefused` if the client's bucket is empty."""
        if not self._rate_hz:
            return
        now_s = self._clock()
        tokens, since_s = self._buckets.pop(client, (self._burst, now_s))
        tokens = min(tokens + (now_s - since_s) * self._rate_hz, self._burst)
        taken = tokens >= 1
        self._buckets[client] = (tokens - taken, now_s)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        if not taken:
            raise CallRefused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"more than {self._rate_hz:g} requests a second; send fewer, or raise --rate-limit",
            )


class ByteLimit:
    """Bytes of requests that are under way, together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0

    def take(self, size: int) -> None:
        """Hold some bytes; raises `CallRefused` if that is too many."""
        if self._held + size > self._most:
            raise CallRefused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"requests of {self._most >> 20} MiB are under way already; send fewer at a time",
            )
        self._held += size

    def give_back(self, size: int) -> None:
        """Hold them no longer."""
        self._held -= size
