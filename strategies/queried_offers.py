"""Offers asked for by messages: of Flower's runtimes, simulated or deployed."""

from __future__ import annotations

from dataclasses import dataclass
from logging import WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from powerctl.errors import InvalidInput
from powerctl.rounds import RoundOffer
from strategies.code_version import CODE, code_version
from strategies.records import CONFIG, OFFER, decode


@dataclass(frozen=True)
class QueriedOffers:
    """Asks every node of a grid in every round.

    Parameters
    ----------
    timeout_s : float
        Wall-clock seconds to wait for the offers.
    """

    timeout_s: float = 600.0

    def collect(self, grid: Grid, config: ConfigRecord) -> dict[int, RoundOffer]:
        """The offers by node; nodes that fail or stay silent are logged and left out."""
        content = RecordDict({CONFIG: ConfigRecord({**config, CODE: code_version()})})
        queries = [Message(content, node, MessageType.QUERY) for node in grid.get_node_ids()]
        offers = {}
        for reply in grid.send_and_receive(queries, timeout=self.timeout_s):
            if reply.has_error():
                log(WARNING, "a node made no offer: %s", reply.error.reason)
                continue
            try:
                offer = decode(RoundOffer, reply.content.config_records[OFFER])
            except (InvalidInput, KeyError) as error:
                log(WARNING, "node %s made no valid offer: %s", reply.metadata.src_node_id, error)
                continue
            offers[reply.metadata.src_node_id] = offer
        return offers
