"""A client that trains in the ClientApp's own process: simulations, and nodes without agent."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from powerctl.errors import InvalidInput
from powerctl.rounds import RoundAssignment
from wattfed.client.fleet import ClientProfile, load_fleet, profile_from_node_config
from wattfed.client.local import ClientState, LocalClient
from wattfed.client.state_file import StateFile
from wattfed.client.tasks.evaluation import evaluate as evaluate_model
from wattfed.strategies.records import ASSIGNMENT, CLOCK, CONFIG, OFFER, REPORT, RUN, decode, encode
from wattfed.strategies.run_config import RunConfig

_STATE = "wattfed-client"
_STATE_DIR = "state-dir"  # key of the node configuration: where states outlive Flower's run
_LISTS = ("predictor", "label_counts")  # in a record; tuples in a state
_THREADS = 1  # the order of summation, and so the model, must not depend on the host's cores


def query(message: Message, context: Context) -> Message:
    """Answer with this client's offer for the next round."""
    client = _open(message, context)
    offer = client.offer(_clock_s(message))
    if client.state.label_counts:  # told once and for all
        _save(message, context, client.state)
    return Message(RecordDict({OFFER: encode(offer)}), reply_to=message)


def train(message: Message, context: Context) -> Message:
    """Train as assigned; answer with the arrays and the report, or the report alone."""
    torch.set_num_threads(_THREADS)
    client = _open(message, context)
    config = message.content.config_records[CONFIG]
    assignment = decode(RoundAssignment, message.content.config_records[ASSIGNMENT])
    model = client.task.model()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    report = client.train(
        model,
        assignment,
        server_round=int(config["server-round"]),
        proximal_mu=float(config.get("proximal-mu", 0.0)),
        clock_s=_clock_s(message),
    )
    _save(message, context, client.state)
    content = RecordDict({REPORT: encode(report)})
    if report.minibatches and not report.lost:
        content["arrays"] = ArrayRecord(model.state_dict())
        content["metrics"] = MetricRecord(
            {"num-examples": report.examples, "train-loss": report.loss}
        )
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's own samples."""
    client = _open(message, context)
    model = client.task.model()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    loss, accuracy = evaluate_model(model, client.samples)
    metrics = MetricRecord(
        {"num-examples": len(client.samples), "eval-loss": loss, "accuracy": accuracy}
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _clock_s(message: Message) -> float:
    """The fleet's virtual clock, as the server tells it."""
    return float(message.content.config_records[CONFIG].get(CLOCK, 0.0))


def _open(message: Message, context: Context) -> LocalClient:
    """The client of a context.

    Device and limits come from the SuperNode's ``--node-config`` where it names a `device`, else
    from the run's fleet file by `partition-id`.
    """
    config = RunConfig.from_flower(context.run_config)
    node = dict(context.node_config)
    if "partition-id" not in node or "num-partitions" not in node:
        raise InvalidInput("the node config needs partition-id and num-partitions")
    if "device" in node:
        profile = profile_from_node_config(node)
    else:
        profile = _member(config.fleet, int(node["partition-id"]))
    return LocalClient(config, profile, int(node["num-partitions"]), _load(message, context))


def _member(fleet: str, client: int) -> ClientProfile:
    clients = load_fleet(fleet)
    if client >= len(clients):
        raise InvalidInput(f"fleet {fleet} has {len(clients)} clients, this node is {client}")
    return clients[client]


def _state_file(message: Message, context: Context) -> StateFile | None:
    node = context.node_config
    if _STATE_DIR not in node:
        return None
    run = message.content.config_records[CONFIG].get(RUN, context.run_id)
    return StateFile.of(Path(str(node[_STATE_DIR])), str(run), int(node["partition-id"]))


def _load(message: Message, context: Context) -> ClientState:
    """What earlier rounds left: in this Flower run, else on disc in an earlier one."""
    record = context.state.config_records.get(_STATE)
    if record is not None:
        kept = {f.name: record[f.name] for f in fields(ClientState)}
        return ClientState(**{**kept, **{name: tuple(record[name]) for name in _LISTS}})
    file = _state_file(message, context)
    return file.read() if file else ClientState()


def _save(message: Message, context: Context, state: ClientState) -> None:
    lists = {name: list(getattr(state, name)) for name in _LISTS}
    context.state[_STATE] = ConfigRecord({**asdict(state), **lists})
    if file := _state_file(message, context):
        file.write(state)
