"""What a client reads from the server's messages, and the contents of its replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from wattfed.strategies.codec import decode, encode
from wattfed.strategies.protocol import (
    ARRAYS,
    CLOCK,
    CONFIG,
    METRICS,
    PROTOCOL,
    ROUND,
    RUN,
    WEIGHT,
    RoundAssignment,
    RoundOffer,
    RoundReport,
    check_protocol,
)


@dataclass(frozen=True)
class Told:
    """What the server tells with every message.

    Attributes
    ----------
    server_round : int
        The round that begins.
    clock_s : float
        The fleet's virtual clock.
    proximal_mu : float
        FedProx's parameter.
    run : str
        The Flower run in which the federation began; empty if that is the message's own.
    """

    server_round: int
    clock_s: float
    proximal_mu: float
    run: str

    @classmethod
    def of(cls, content: RecordDict) -> Told:
        """From a message's content; raises `InvalidInput` if the server speaks another protocol."""
        config = content.config_records.get(CONFIG, {})
        check_protocol("the server", config.get(PROTOCOL))
        return cls(
            server_round=int(config[ROUND]),
            clock_s=float(config.get(CLOCK, 0.0)),
            proximal_mu=float(config.get("proximal-mu", 0.0)),
            run=str(config.get(RUN, "")),
        )


def assignment_of(content: RecordDict) -> RoundAssignment:
    """What the server wants of the client; raises `InvalidInput` if it is none."""
    return decode(RoundAssignment, content.config_records[CONFIG])


def offered(offer: RoundOffer) -> RecordDict:
    """The reply to a query."""
    return RecordDict({CONFIG: ConfigRecord(encode(offer))})


def trained(report: RoundReport, arrays: ArrayRecord) -> RecordDict:
    """The reply of a client that was to train; without the arrays if it did not, or is lost."""
    content = RecordDict({CONFIG: ConfigRecord(encode(report))})
    if report.minibatches and not report.lost:
        content[ARRAYS] = arrays
        content[METRICS] = MetricRecord({WEIGHT: report.examples, "train-loss": report.loss})
    return content


def evaluated(examples: int, metrics: Mapping[str, float]) -> RecordDict:
    """The reply of a client that has evaluated the global model."""
    return RecordDict({METRICS: MetricRecord({WEIGHT: examples, **metrics})})
