"""A client that trains in the ClientApp's own process: simulations, and nodes without agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from torch import nn

from powerctl.accelerator import choose_accelerator
from powerctl.errors import InvalidInput
from powerctl.fields import build
from powerctl.task.randomness import Randomness
from wattfed.client.fleet import ClientProfile, load_fleet, profile_from_node_config
from wattfed.client.worker.charging import costs_source
from wattfed.client.worker.client_state import ClientState, StateFile
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.costs import NOTHING_MEASURED, SignatureCosts
from wattfed.client.worker.local_client import LocalClient
from wattfed.client.worker.messages import RoundContext, assignment_of, evaluated, offered, trained
from wattfed.client.worker.model_arrays import array_record_of, load_arrays
from wattfed.strategies.app_folder import file_of_app, import_from_app_first
from wattfed.strategies.protocol import ARRAYS, ROUND, RoundOffer, decode_record, encode_record
from wattfed.strategies.run_config import RunConfig

_STATE, _OFFER = "wattfed-client", "wattfed-offer"  # what Flower keeps between two messages
_STATE_DIR = "state-dir"  # key of the node configuration: where states outlive Flower's run


def answer(message: Message, context: Context) -> Message:
    """Answer the server: with an offer, with a training or with an evaluation, as it asks."""
    told = RoundContext.of(message.content)
    does = {MessageType.QUERY: _offer, MessageType.TRAIN: _train, MessageType.EVALUATE: _evaluate}
    kind = message.metadata.message_type.partition(".")[0]
    return Message(does[kind](_open(told, context), told, message, context), reply_to=message)


def _offer(
    client: LocalClient, told: RoundContext, message: Message, context: Context
) -> RecordDict:
    """The client's offer for the next round, which is kept until it trains."""
    offer = client.offer(told.clock_s)
    if client.state.label_counts or client.state.halvings:  # told once; found too large just now
        _save(told, context, client.state)
    context.state[_OFFER] = ConfigRecord({**encode_record(offer), ROUND: told.server_round})
    return offered(offer)


def _train(
    client: LocalClient, told: RoundContext, message: Message, context: Context
) -> RecordDict:
    """The arrays of a training as assigned and its report, or the report alone."""
    with _alone(client, message) as model:
        report = client.train(
            model,
            assignment_of(message.content),
            told.server_round,
            told.proximal_mu,
            clock_s=told.clock_s,
            offer=_offer_kept(told, context),
        )
    _save(told, context, client.state)
    return trained(report, array_record_of(model))


def _evaluate(
    client: LocalClient, told: RoundContext, message: Message, context: Context
) -> RecordDict:
    """What the global model is worth on this client's own samples."""
    with _alone(client, message) as model:
        report, metrics = client.evaluate(model, told.server_round, told.clock_s)
    _save(told, context, client.state)
    return evaluated(report, metrics)


@contextmanager
def _alone(client: LocalClient, message: Message) -> Iterator[nn.Module]:
    """A model with the message's arrays, with the random generators kept."""
    with Randomness(client.config.seed):
        model = client.task.first_model()
        load_arrays(model, message.content.array_records[ARRAYS])
        yield model


def _open(told: RoundContext, context: Context) -> LocalClient:
    """The client of a context.

    Device and limits come from the SuperNode's ``--node-config`` where it names a `device`, else
    from the run's fleet file by `partition-id`; `accelerator` says where models live.
    """
    import_from_app_first()
    config = RunConfig.from_flower(context.run_config)
    node = dict(context.node_config)
    if "partition-id" not in node or "num-partitions" not in node:
        raise InvalidInput("the node config needs partition-id and num-partitions")
    choose_accelerator(str(node.get("accelerator", "")))
    if "device" in node:
        profile = profile_from_node_config(node)
    else:
        profile = _member(file_of_app(config.fleet), int(node["partition-id"]))
    state = _load(told, context)
    n_clients, own = int(node["num-partitions"]), tuple(sorted(node.items()))
    client = LocalClient(config, profile, n_clients, state, costs=_costs(node, profile), node=own)
    told.check_task(client.task.name, client.task.code_hash)
    return client


def _costs(node: Mapping[str, Any], profile: ClientProfile) -> SignatureCosts:
    """What is known of costs: that of the state directory, where the node has one."""
    if _STATE_DIR not in node:
        return NOTHING_MEASURED
    return CostModels(Path(str(node[_STATE_DIR])), profile.device)


def _member(fleet: str, client: int) -> ClientProfile:
    clients = load_fleet(fleet)
    if client >= len(clients):
        raise InvalidInput(f"fleet {fleet} has {len(clients)} clients, this node is {client}")
    return clients[client]


def _state_file(told: RoundContext, context: Context) -> StateFile | None:
    node = context.node_config
    if _STATE_DIR not in node:
        return None
    run, folder = told.run or str(context.run_id), Path(str(node[_STATE_DIR]))
    config, own = RunConfig.from_flower(context.run_config), tuple(sorted(node.items()))
    return StateFile.of(folder, run, int(node["partition-id"]), costs_source(config, folder, own))


def _load(told: RoundContext, context: Context) -> ClientState:
    """What earlier rounds left: in this Flower run, else on disc in an earlier one."""
    record = context.state.config_records.get(_STATE)
    if record is not None:
        return build(ClientState, dict(record), "what Flower keeps of the client")
    file = _state_file(told, context)
    return file.read() if file else ClientState()


def _save(told: RoundContext, context: Context, state: ClientState) -> None:
    kept = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(state).items()}
    context.state[_STATE] = ConfigRecord(kept)
    if file := _state_file(told, context):
        file.write(state)


def _offer_kept(told: RoundContext, context: Context) -> RoundOffer | None:
    """The offer that this client has made for the round; None where another process made it."""
    record = context.state.config_records.get(_OFFER)
    if record is None or record[ROUND] != told.server_round:
        return None
    return decode_record(RoundOffer, record)
