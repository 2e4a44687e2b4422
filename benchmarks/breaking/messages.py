"""Doors of a server: what a client sends in a run, and the decoding of each record."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from benchmarks.breaking.trying import Door, Wrong
from benchmarks.in_process_grid import InProcessGrid
from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.fulcrum.plans import FixedMode, Front
from wattfed.strategies.code_version import code_version
from wattfed.strategies.evaluation import EvaluationPlan
from wattfed.strategies.offers import WEIGHT_CAP
from wattfed.strategies.policies.catalogue import POLICIES, make_policy
from wattfed.strategies.protocol import (
    ARRAYS,
    CONFIG,
    METRICS,
    WEIGHT,
    EvaluationReport,
    RoundAssignment,
    RoundOffer,
    RoundReport,
    decode_record,
    encode_record,
)
from wattfed.strategies.round.aggregation import AGGREGATIONS, make_aggregation
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

CLIENTS, ROUNDS, EXAMPLES = 8, 3, 160  # bulyan needs seven
LIAR = CLIENTS - 1  # the last to be heard, as who comes first has a number
_START: Mapping[str, Any] = {
    "weight": np.zeros(4, np.float32),
    "half": np.zeros(2, np.float16),
    "counter": np.array(0, np.int64),
    "mask": np.zeros(2, np.bool_),
}
_RECORDS = {"config": ConfigRecord, "metrics": MetricRecord, "arrays": ArrayRecord}
_STEADY = ("fedavg", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")
_SETTINGS: Mapping[str, dict[str, Any]] = {
    **{f"policy {name}": {"strategy": name} for name in POLICIES.names()},
    **{f"aggregation {name}": {"aggregation": name} for name in AGGREGATIONS.names()},
    "clipped": {"clip_norm": 1.0},
    "clipped pace": {"clip_norm": 1.0, "strategy": "pace"},
    "late ones": {"strategy": "random", "per_round": 4, "over_commit": 1.5, "late": "refl"},
    "a buffer": {"strategy": "random", "per_round": 4, "buffer": 3, "late": "fedbuff"},
    "blind": {"strategy": "oort", "power": "maxn", "per_round": 4},
}


def doors(_: ExitStack) -> Iterator[Door]:
    """Each kind of record, and a run with each policy and aggregation."""
    code_version()  # takes seconds, once in a process
    ours = (_offer(0), _report(0), RoundAssignment(0, 10), EvaluationReport(0, EXAMPLES))
    record: Any
    for record in ours:
        kind = type(record)
        yield Door(f"decode {kind.__name__}", encode_record(record), partial(_decoded, kind))
    example = {
        "offer": _message(_offer(LIAR)),
        "train": _message(
            _report(LIAR),
            {WEIGHT: EXAMPLES, "train-loss": 1.0},
            {**_START, "weight": np.full(4, 0.4375, np.float32)},  # no model of honest ones
        ),
        "evaluate": _message(EvaluationReport(LIAR, EXAMPLES), {"loss": 1.0, "accuracy": 0.5}),
    }
    weight = example["train"]["records"][ARRAYS]["weight"]
    weight["data"] = [0.4375] * 4  # numbers, to be changed as such; the other arrays are bytes
    for name, settings in _SETTINGS.items():
        yield Door(f"run, {name}", example, partial(_run, settings))


def records_of(tree: Any) -> RecordDict:
    """The records that a tree of them says, as they come over a network.

    Raises
    ------
    TypeError, ValueError
        If Flower can't send them.
    """
    records = RecordDict()
    for name, items in tree.items():
        items = dict(items)
        kind = _RECORDS[items.pop("is")]
        if kind is ArrayRecord:
            items = {key: _array_of(**one) for key, one in items.items()}
        records[name] = kind(items)
    sent = recorddict_to_proto(records).SerializeToString()
    return recorddict_from_proto(RecordDictProto.FromString(sent))


def tree_of(records: RecordDict) -> dict[str, Any]:
    """Records as such a tree."""
    kinds = {kind: name for name, kind in _RECORDS.items()}
    return {
        name: {
            "is": kinds[type(record)],
            **{key: _array(one) if isinstance(one, Array) else one for key, one in record.items()},
        }
        for name, record in records.items()
    }


def _array_of(dtype: str, shape: Any, stype: str, data: Any) -> Array:
    """An array of bytes, or of numbers."""
    if isinstance(data, list):
        data = Array(np.array(data, dtype)).data
    return Array(dtype, tuple(shape), stype, data)


def _array(one: Array) -> dict[str, Any]:
    return {name: getattr(one, name) for name in ("dtype", "stype", "data")} | {
        "shape": [*one.shape]
    }


def _message(record: Any, metrics: Any = None, arrays: Any = None) -> dict[str, Any]:
    records = RecordDict({CONFIG: ConfigRecord(encode_record(record))})
    if metrics is not None:
        records[METRICS] = MetricRecord(metrics)
    if arrays is not None:
        records[ARRAYS] = ArrayRecord({name: Array(one) for name, one in arrays.items()})
    return {"error": "", "records": tree_of(records)}


def _decoded(kind: Any, values: dict[str, Any]) -> str:
    try:
        decode_record(kind, values)
    except InvalidInput as error:
        return _checked_line(str(error))
    return "taken"


def _checked_line(line: str) -> str:
    if len(line) > 1_500 or not line.isprintable():
        raise Wrong(f"a reason that is no short line\n{line[:300]!r}")
    return "refused"


class _Lines(logging.Handler):
    """Holds what is logged to lines."""

    wrong = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if not self.wrong and (len(line) > 1_500 or not line.replace("\t", "").isprintable()):
            self.wrong = f"{record.msg!r} logs what is no short line\n{line[:300]!r}"


class _Grid(InProcessGrid):
    """A grid whose last node may answer with an error of its own words."""

    def _reply_to(self, message: Message) -> Message:
        reply = super()._reply_to(message)
        told = reply.content.config_records.get("error") if reply.has_content() else None
        return Message(Error(2, str(told["reason"])), reply_to=message) if told else reply


def _run(settings: dict[str, Any], case: dict[str, Any]) -> str:
    """A few rounds, in each of which the last client sends what the case has."""
    app, before = _app(case)
    if app is None:
        return "cannot be sent"
    logger, lines = logging.getLogger("flwr"), _Lines()
    logger.handlers = [lines]
    options = {"strategy": "all", "per_round": CLIENTS, "evaluate_share": 1.0, **settings}
    config = RunConfig(**options)
    strategy = SelectingStrategy(
        make_policy(config),
        make_aggregation(config),
        per_round=config.per_round,
        round_policy=config.round_policy,
        evaluation=EvaluationPlan("clients", share=1.0),
        weight_cap=config.weight_cap,
    )
    start = ArrayRecord({name: Array(one) for name, one in _START.items()})
    grid = _Grid(app, CLIENTS, {})
    result = strategy.start(grid, start, num_rounds=ROUNDS)
    if lines.wrong:
        raise Wrong(lines.wrong)
    _check_run(strategy, before, result.arrays, config)
    return "refused" if strategy.ledger.refusals else "taken"


def _check_run(
    strategy: SelectingStrategy, before: dict[int, Any], arrays: ArrayRecord, config: RunConfig
) -> None:
    """Hold a run to what honest clients may expect of it."""
    ledger = strategy.ledger
    for refusal in ledger.refusals:
        _checked_line(str(refusal))
        if refusal.node is not None and refusal.node < LIAR + 2:
            raise Wrong(f"an honest node was refused\n{refusal}")
    if not arrays:
        raise Wrong("the run made no model")
    now = arrays["weight"].numpy()
    for entry in reversed(ledger.entries):
        was, after = before.get(entry.round, now), now
        now = was
        reports = {report.client: report for report in ledger.reports_of(entry.round)}
        honest = [client for client in entry.clients if client != LIAR]
        if not np.isfinite(after).all():
            raise Wrong("the model is not finite")
        if config.buffer or config.over_commit > 1:  # some are late, and count in another round
            continue
        if missing := set(honest) - reports.keys():
            raise Wrong(f"honest clients do not count\n{missing}")
        if honest and (after == was).all():
            raise Wrong("a round of honest clients changed nothing")
        liar = reports.get(LIAR)
        if liar is not None and liar.examples > WEIGHT_CAP * EXAMPLES:
            raise Wrong(f"the liar counts for {liar.examples} examples")
        sent = liar is not None and liar.minibatches and not entry.rejected
        if (
            honest
            and not sent
            and config.aggregation in _STEADY
            and not np.allclose(after, was + 1)
        ):
            raise Wrong(f"the model is not the honest ones'\n{was} then {after}")


def _app(case: dict[str, Any]) -> tuple[ClientApp | None, dict[Any, Any]]:
    """The clients, and the models that they are asked to train; none if the case can't be sent."""
    models: dict[Any, Any] = {}
    try:
        lies = {}
        for kind in ("offer", "train", "evaluate"):
            lies[kind] = records_of(case[kind]["records"])
            if reason := case[kind]["error"]:
                lies[kind]["error"] = ConfigRecord({"reason": reason + ""})  # a text
    except Exception:  # whatever Flower says to what it does not carry
        return None, models
    app = ClientApp()

    def answer(kind: str, message: Message, context: Context, honest: RecordDict) -> Message:
        is_liar = context.node_config["partition-id"] == LIAR
        return Message(lies[kind] if is_liar else honest, reply_to=message)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        return answer("offer", message, context, _records(_offer(client)))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        arrays = {name: one.numpy() for name, one in message.content.array_records[ARRAYS].items()}
        number = message.content.config_records[CONFIG]["server-round"]
        models.setdefault(number, arrays["weight"])
        arrays["weight"] = arrays["weight"] + np.float32(1)
        records = _records(_report(client))
        records[ARRAYS] = ArrayRecord({name: Array(one) for name, one in arrays.items()})
        records[METRICS] = MetricRecord({WEIGHT: EXAMPLES, "train-loss": 1.0})
        return answer("train", message, context, records)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        records = _records(EvaluationReport(client, EXAMPLES))
        records[METRICS] = MetricRecord({"loss": 1.0})
        return answer("evaluate", message, context, records)

    return app, models


def _records(record: Any) -> RecordDict:
    return RecordDict({CONFIG: ConfigRecord(encode_record(record))})


def _offer(client: int) -> RoundOffer:
    space = load_board("orin-nano").space
    front = Front((space.mode(0), space.mode(1)), np.array([1.0, 2.0]), np.array([20.0, 14.0]))
    return RoundOffer(
        client=client,
        n_clients=CLIENTS,
        examples=EXAMPLES,
        minibatches=10,
        loss=1.0,
        front=front,
        maxn=FixedMode(space.maximum, 0.8, 30.0),
        preset=FixedMode(space.mode(2), 1.2, 22.0),
        idle_power_w=2.0,
        transfer_s=0.5,
        allowance_j=1e6,
        label_counts=(80.0, 80.0),
    )


def _report(client: int) -> RoundReport:
    return RoundReport(
        client=client,
        examples=EXAMPLES,
        minibatches=10,
        time_s=10.0,
        energy_j=200.0,
        peak_power_w=20.0,
        transfer_s=0.5,
        idle_power_w=2.0,
        loss=1.0,
        power_limit_w=25.0,
        allowance_j=500.0,
        deadline_s=20.0,
        wanted_minibatches=10,
        planned_minibatches=10,
        planned_time_s=10.0,
        planned_energy_j=200.0,
        modes=("a mode",),
    )
