"""The nodes of a run: the offers they are asked for, which client each is, and who rests.

A reply belongs to the node that sent it, which the SuperLink has checked. What a reply says of
itself, above all whose it is, is held against what the node said first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid

from powerctl.errors import InvalidInput
from powerctl.reading import in_line
from wattfed.strategies.protocol import CONFIG, RoundOffer, decode_record
from wattfed.strategies.round.ledger import node_words

IN_A_ROW = 3  # refusals of a node's replies of one kind, after which
REST_ROUNDS = 5  # it is not asked for so many rounds
_DIGITS = 6  # of a node's number, which tell nodes of the same name apart

Refuse = Callable[[int, int | None, str], None]
"""Enters that a reply is refused: of which node, of which client if it told one, and why."""


class Roster:
    """The nodes of a run, from round to round.

    A node is one client as long as the run lasts, and nobody else is that client while the node is
    in the grid; of a node that was registered with a key and a name (``flwr supernode register
    KEY --name NAME``) also while it is away. What it says first of its examples holds as well.

    A node is called by the name of its key, else by the name that it tells first, with the first
    digits of its number where another node is called so.
    """

    def __init__(self) -> None:
        self._client_of: dict[int, int] = {}
        self._node_of: dict[int, int] = {}
        self._examples: dict[int, int] = {}
        self._name_of: dict[int, str] = {}
        self._named: set[int] = set()
        self._in_a_row: Counter[tuple[int, str]] = Counter()
        self._rests_until: dict[int, int] = {}

    def to_ask(self, grid: Grid, server_round: int) -> list[int]:
        """The nodes of a grid, but for those that rest in a round."""
        if hasattr(grid, "get_nodes"):
            present = {node.node_id: node.name for node in grid.get_nodes()}
        else:  # Flower 1.30
            present = dict.fromkeys(grid.get_node_ids(), "")
        names = {node: name for node, name in present.items() if name}
        self._named |= names.keys()
        self._name_of |= names
        for client, node in list(self._node_of.items()):
            if node not in present and node not in self._named:
                del self._node_of[client]
                self._name_of.pop(node, None)
        return [node for node in present if self._rests_until.get(node, 0) < server_round]

    def admitted(self, offers: Mapping[int, RoundOffer], refuse: Refuse) -> dict[int, RoundOffer]:
        """The offers by node that are their nodes' to make, with the examples that they had first.

        Of nodes that split the data into different numbers of partitions, most are right.
        """
        told = Counter(offer.n_clients for offer in offers.values())
        most = max(told, key=lambda n: (told[n], -n), default=0)
        self._name(offers)
        found = {}
        for node, offer in offers.items():
            client = offer.client
            was, owner = self._client_of.get(node, client), self._node_of.get(client, node)
            if offer.n_clients != most:
                refuse(node, client, f"its num-partitions is {offer.n_clients}, of most {most}")
            elif was != client:
                refuse(node, client, f"it was client {was} before, and stays that in this run")
            elif owner != node:
                refuse(node, client, f"client {client} is {self.node(owner)}; check partition-id")
            else:
                self._client_of[node], self._node_of[client] = client, node
                examples = offer.examples
                if examples:
                    examples = self._examples.setdefault(node, examples)
                found[node] = replace(offer, examples=examples)
        return found

    def _name(self, offers: Mapping[int, RoundOffer]) -> None:
        """Name the nodes that offer for the first time."""
        new = {node: offer.name for node, offer in offers.items() if node not in self._name_of}
        used = Counter([*self._name_of.values(), *new.values()])
        for node, name in new.items():
            if name:
                shared = f"-{str(node)[:_DIGITS]}" if used[name] > 1 else ""
                self._name_of[node] = name + shared

    def name_of(self, node: int) -> str:
        """What a node is called; empty if it has no name, or has not been heard."""
        return self._name_of.get(node, "")

    def node(self, node: int) -> str:
        """A node in a message, by its name and number."""
        return node_words(node, self.name_of(node))

    def client(self, client: int) -> str:
        """A client in a message, by its number, and the name of its node where it has one."""
        name = self.name_of(self._node_of[client]) if client in self._node_of else ""
        return f"client {client} ({name})" if name else f"client {client}"

    def client_of(self, node: int) -> int | None:
        """Which client a node is; None if it has not been admitted."""
        return self._client_of.get(node)

    def accept(self, node: int, kind: str) -> None:
        """A reply of a node was good."""
        self._in_a_row.pop((node, kind), None)

    def refuse(self, node: int, kind: str, server_round: int) -> None:
        """A reply of a node was refused; after some in a row it rests."""
        self._in_a_row[node, kind] += 1
        if self._in_a_row[node, kind] == IN_A_ROW:
            self.accept(node, kind)
            self._rests_until[node] = server_round + REST_ROUNDS
            log(
                WARNING,
                "%s: %s refusals in a row; it is asked again in round %s",
                *(self.node(node), IN_A_ROW, self._rests_until[node] + 1),
            )


@dataclass
class QueriedOffers:
    """Asks the nodes of a grid in every round, and logs who cannot do a round's work, once.

    Parameters
    ----------
    roster : Roster
        The nodes of the run, by which they are called.
    timeout_s : float
        Wall-clock seconds to wait for the offers.

    Attributes
    ----------
    declined : dict of int to str
        Why clients cannot take part, as they said last.
    charged : dict of int to str
        What a minibatch of each client is charged as, as it said last.
    """

    roster: Roster
    timeout_s: float = 600.0
    declined: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    charged: dict[int, str] = field(default_factory=dict, init=False, repr=False)
    _unable: set[int] = field(default_factory=set, init=False, repr=False)

    def collect(
        self, grid: Grid, config: ConfigRecord, nodes: Iterable[int], refuse: Refuse
    ) -> dict[int, RoundOffer]:
        """The offers by node; those that fail, stay silent or offer what cannot be are left out."""
        content = RecordDict({CONFIG: config})
        queries = [Message(content, node, MessageType.QUERY) for node in nodes]
        offers: dict[int, RoundOffer] = {}
        replies = grid.send_and_receive(queries, timeout=self.timeout_s)
        asked = {query.metadata.message_id: query.metadata.dst_node_id for query in queries}
        for reply in replies:
            if reply.has_error():  # for a dead node it is the SuperLink that answers
                node = asked.get(reply.metadata.reply_to_message_id)
                who = "a node" if node is None else self.roster.node(node)
                log(WARNING, "%s made no offer: %s", who, in_line(reply.error.reason, 1000))
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
        self.charged[offer.client] = offer.charged
        if offer.decline:
            self.declined[offer.client] = offer.decline
        why = f"declines: {offer.decline}" if offer.decline else _what_it_lacks(offer)
        if not why:
            self._unable.discard(offer.client)
        elif offer.client not in self._unable:
            self._unable.add(offer.client)
            log(INFO, "%s %s", self.roster.client(offer.client), why)


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
