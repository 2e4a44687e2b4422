"""Offers asked for by messages: of Flower's runtimes, simulated or deployed."""

from __future__ import annotations

from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from powerctl.errors import InvalidInput
from wattfed.strategies.codec import decode
from wattfed.strategies.protocol import CONFIG, RoundOffer


@dataclass
class QueriedOffers:
    """Asks every node of a grid in every round, and logs who cannot do a round's work, once.

    Parameters
    ----------
    timeout_s : float
        Wall-clock seconds to wait for the offers.

    Attributes
    ----------
    declined : dict of int to str
        Why clients cannot take part, as they said last.
    """

    timeout_s: float = 600.0
    declined: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    _unable: set[int] = field(default_factory=set, init=False, repr=False)

    def collect(self, grid: Grid, config: ConfigRecord) -> dict[int, RoundOffer]:
        """The offers by node; nodes that fail or stay silent are logged and left out."""
        content = RecordDict({CONFIG: config})
        queries = [Message(content, node, MessageType.QUERY) for node in grid.get_node_ids()]
        offers = {}
        for reply in grid.send_and_receive(queries, timeout=self.timeout_s):
            if reply.has_error():
                log(WARNING, "a node made no offer: %s", reply.error.reason)
                continue
            try:
                offer = decode(RoundOffer, reply.content.config_records[CONFIG])
            except (InvalidInput, KeyError) as error:
                log(WARNING, "node %s made no valid offer: %s", reply.metadata.src_node_id, error)
                continue
            offers[reply.metadata.src_node_id] = offer
            self._tell_if_unable(offer)
        return offers

    def _tell_if_unable(self, offer: RoundOffer) -> None:
        self.declined.pop(offer.client, None)
        if offer.decline:
            self.declined[offer.client] = offer.decline
        why = f"declines: {offer.decline}" if offer.decline else _what_it_lacks(offer)
        if not why:
            self._unable.discard(offer.client)
        elif offer.client not in self._unable:
            self._unable.add(offer.client)
            log(INFO, "client %s %s", offer.client, why)


def _what_it_lacks(offer: RoundOffer) -> str:
    """Why a client that takes part can do but a part of its round; empty if it can do all."""
    least_j = offer.minibatches * float(offer.front.energy_j[-1])
    most_j = min(offer.allowance_j, offer.battery_j)
    if least_j <= most_j:
        return ""
    return (
        f"has {most_j:.4g} J for a round, whose {offer.minibatches} minibatches take at least "
        f"{least_j:.4g} J: it can do a part, and some policies leave it out"
    )
