"""The Flower ClientApp: offers on query, trains on train, evaluates on evaluate.

With `agent` in its node configuration it is a messenger: the agent on the device answers.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from wattfed.strategies.code_version import CODE, check_code_version
from wattfed.strategies.protocol import CONFIG, PROTOCOL, check_protocol

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer with this client's offer for the next round."""
    config = message.content.config_records.get(CONFIG, ConfigRecord())
    check_protocol("the server", config.get(PROTOCOL))
    check_code_version(str(config.get(CODE)))
    return _answered(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train as assigned; answer with the arrays and the report, or the report alone."""
    return _answered(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's own samples."""
    return _answered(message, context)


def _answered(message: Message, context: Context) -> Message:
    """Who answers is imported when it is known: a messenger needs no torch, which takes seconds."""
    if "agent" in context.node_config:
        from wattfed.client.forwarding import forward

        return forward(message, context)
    from wattfed.client.in_process import answer

    return answer(message, context)
