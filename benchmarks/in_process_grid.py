"""A Flower Grid that runs the ClientApp of every node in this process: no Ray, no serialising."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from logging import ERROR
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.common.logger import log
from flwr.serverapp import Grid

from powerctl.errors import InvalidInput
from wattfed.server.engines.virtual import SUPERLINK_NODE_ID, join_run

_RUN_ID = 1


class InProcessGrid(Grid):
    """Calls a ClientApp for `n_nodes` nodes, one after the other, in the order of the messages.

    Each node has one context that lives as long as the grid, made when it is first needed, so that
    a pool of 100,000 nodes costs nothing. The node of a partition has the id partition + 2, in
    every run: 1 is the SuperLink's own.

    A client cannot tell this grid from Flower's runtimes: it gets records of its own (array data
    and lists inside records are shared, not copied), and if it raises, the server gets an error
    reply of code 2, the client's state stays as it was before the message, and the run goes on.

    Parameters
    ----------
    client_app : ClientApp
        The app of all nodes.
    n_nodes : int
        Nodes of the partitions 0 to n_nodes - 1.
    run_config : dict
        Flower's flat run config.

    Raises
    ------
    InvalidInput
        If there is to be no node.
    """

    def __init__(self, client_app: ClientApp, n_nodes: int, run_config: dict[str, Any]) -> None:
        if n_nodes < 1:
            raise InvalidInput(f"n_nodes is {n_nodes}; a grid has at least 1 node")
        self._client_app = client_app
        self._nodes = range(SUPERLINK_NODE_ID + 1, SUPERLINK_NODE_ID + 1 + n_nodes)
        self._run_config = run_config
        self._contexts: dict[int, Context] = {}
        self._replies: dict[str, Message] = {}
        self._n_messages = 0
        self._run: Any = join_run(_RUN_ID)

    def set_run(self, run: Any) -> None:
        """Take the run's record."""
        self._run = run

    @property
    def run(self) -> Any:
        """Flower's record of the run; empty but for its id."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The ids of all nodes, by partition."""
        return self._nodes

    def context(self, node_id: int) -> Context:
        """The context of a node, as its client left it.

        Raises
        ------
        InvalidInput
            If there is no such node.
        """
        if node_id not in self._nodes:
            raise InvalidInput(
                f"there is no node {node_id}: ids are {self._nodes.start} to {self._nodes[-1]}"
            )
        if node_id not in self._contexts:
            self._contexts[node_id] = Context(
                run_id=_RUN_ID,
                node_id=node_id,
                node_config={
                    "partition-id": node_id - self._nodes.start,
                    "num-partitions": len(self._nodes),
                },
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        return self._contexts[node_id]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the messages' handlers at once; their replies wait to be pulled.

        Parameters
        ----------
        messages : Iterable[Message]
            A list or a generator, in which each message is handled before the next is made.

        Returns
        -------
        list of str
            The ids of the messages, in their order.
        """
        ids = []
        for message in messages:
            self._stamp(message)
            reply = self._reply_to(message)
            self._stamp(reply)
            self._replies[message.metadata.message_id] = reply
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to some messages; each is handed out once."""
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull: every message is answered, so that no time-out can run out."""
        return self.pull_messages(self.push_messages(messages))

    def _stamp(self, message: Message) -> None:
        """Give a message its id, as the SuperLink does; theirs is a hash of the content."""
        self._n_messages += 1
        fields = message.metadata.__dict__
        fields["_message_id"] = f"message-{self._n_messages}"
        if not message.metadata.reply_to_message_id:  # Flower 1.30 leaves these open until now
            fields["_run_id"] = _RUN_ID
            fields["_src_node_id"] = SUPERLINK_NODE_ID

    def _reply_to(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        if node_id not in self._nodes:
            reason = f"there is no node {node_id}"
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message)
        context = self.context(node_id)
        received = copy.copy(message)
        received.content = _own(message.content)
        before, context.state = context.state, _own(context.state)
        try:
            reply = self._client_app(received, context)
            if not isinstance(reply, Message):
                raise TypeError(f"the ClientApp returned {reply!r}, not a Message")
        except Exception as error:
            context.state = before
            log(
                ERROR,
                "The ClientApp of partition %s raised",
                context.node_config["partition-id"],
                exc_info=error,
            )
            reason = f"{type(error)}:<'{error}'>"  # as flwr-clientapp words it
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        if reply.has_content():
            reply.content = _own(reply.content)
        return reply


def _own(records: RecordDict) -> RecordDict:
    """Records that can be changed without changing these: Flower's drafts share one content."""
    return RecordDict({name: record.copy() for name, record in records.items()})
