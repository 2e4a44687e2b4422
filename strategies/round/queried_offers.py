"""Offers asked for by messages: of Flower's runtimes, simulated or deployed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from powerctl.errors import InvalidInput
from powerctl.reading import in_line
from wattfed.strategies.codec import decode_record
from wattfed.strategies.protocol import CONFIG, RoundOffer
from wattfed.strategies.round.nodes import Refuse


@dataclass
class QueriedOffers:
    """Asks the nodes of a grid in every round, and logs who cannot do a round's work, once.

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

    def collect(
        self, grid: Grid, config: ConfigRecord, nodes: Iterable[int], refuse: Refuse
    ) -> dict[int, RoundOffer]:
        """The offers by node; those that fail, stay silent or offer what cannot be are left out."""
        content = RecordDict({CONFIG: config})
        queries = [Message(content, node, MessageType.QUERY) for node in nodes]
        offers: dict[int, RoundOffer] = {}
        for reply in grid.send_and_receive(queries, timeout=self.timeout_s):
            if reply.has_error():
                log(WARNING, "a node made no offer: %s", in_line(reply.error.reason, 1000))
                continue
            try:
                offer = decode_record(RoundOffer, reply.content.config_records.get(CONFIG, {}))
            except InvalidInput as error:
                refuse(reply.metadata.src_node_id, None, str(error))
                continue
            offers.setdefault(reply.metadata.src_node_id, offer)
        return offers

    def tell_who_is_unable(self, offers: Iterable[RoundOffer]) -> None:
        """Log who cannot do its round's work, and why, unless it was so before."""
        for offer in offers:
            self._tell_if_unable(offer)

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
