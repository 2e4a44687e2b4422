"""The Flower ClientApp: offers on query, trains on train, evaluates on evaluate.

With `agent` in its node configuration it is a messenger: the agent on the device answers.
"""

from __future__ import annotations

from types import ModuleType

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from wattfed.strategies.code_version import CODE, check_code_version
from wattfed.strategies.protocol import CONFIG, PROTOCOL, check_protocol

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer with this client's offer for the next round."""
    config = message.content.config_records.get(CONFIG, {})
    check_protocol("the server", config.get(PROTOCOL))
    check_code_version(str(config.get(CODE)))
    return _who_answers(context).query(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train as assigned; answer with the arrays and the report, or the report alone."""
    return _who_answers(context).train(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's own samples."""
    return _who_answers(context).evaluate(message, context)


def _who_answers(context: Context) -> ModuleType:
    """Imported when it is known: a messenger needs no torch, whose import takes seconds."""
    if "agent" in context.node_config:
        from wattfed.client import forwarding

        return forwarding
    from wattfed.client import in_process

    return in_process
