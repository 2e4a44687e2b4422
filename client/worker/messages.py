"""What a client reads from the server's messages, and the contents of its replies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from powerctl.errors import InvalidInput
from powerctl.fields import Count, checked
from wattfed.strategies.protocol import (
    ARRAYS,
    CLOCK,
    CONFIG,
    METRICS,
    PROTOCOL,
    ROUND,
    RUN,
    TASK,
    WEIGHT,
    Clock,
    EvaluationReport,
    Pull,
    RoundAssignment,
    RoundOffer,
    RoundReport,
    Text,
    check_protocol,
    decode_record,
    encode_record,
)


@dataclass(frozen=True)
class RoundContext:
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
    task_hash : str
        Of the code of the server's task; empty if it is of no file.
    """

    server_round: int
    clock_s: float
    proximal_mu: float
    run: str
    task_hash: str

    @classmethod
    def of(cls, content: RecordDict) -> RoundContext:
        """From a message's content; raises `InvalidInput` for another protocol, or out of range."""
        config = content.config_records.get(CONFIG, ConfigRecord())
        check_protocol("the server", config.get(PROTOCOL))
        return cls(
            server_round=checked(ROUND, config.get(ROUND), Count),
            clock_s=checked(CLOCK, config.get(CLOCK, 0.0), Clock),
            proximal_mu=checked("proximal-mu", config.get("proximal-mu", 0.0), Pull),
            run=checked(RUN, config.get(RUN, ""), Text),
            task_hash=checked(TASK, config.get(TASK, ""), Text),
        )

    def check_task(self, name: str, code_hash: str) -> None:
        """Raise `InvalidInput` if the client's task is of other code than the server's."""
        if code_hash != self.task_hash:
            raise InvalidInput(
                f"task {name} is other code here ({code_hash or 'none'}) than on the server "
                f"({self.task_hash or 'none'}): bring the same file to both"
            )


def assignment_of(content: RecordDict) -> RoundAssignment:
    """What the server wants of the client; raises `InvalidInput` if it is none."""
    return decode_record(RoundAssignment, content.config_records[CONFIG])


def offered(offer: RoundOffer) -> RecordDict:
    """The reply to a query."""
    return RecordDict({CONFIG: ConfigRecord(encode_record(offer))})


def trained(report: RoundReport, arrays: ArrayRecord) -> RecordDict:
    """The reply of a client that was to train; without the arrays if it did not, or is lost."""
    content = RecordDict({CONFIG: ConfigRecord(encode_record(report))})
    if report.minibatches and not report.lost:
        content[ARRAYS] = arrays
        content[METRICS] = MetricRecord({WEIGHT: report.examples, "train-loss": report.loss})
    return content


def evaluated(report: EvaluationReport, metrics: Mapping[str, float]) -> RecordDict:
    """The reply of a client that was to evaluate the global model."""
    return RecordDict(
        {CONFIG: ConfigRecord(encode_record(report)), METRICS: MetricRecord({**metrics})}
    )
