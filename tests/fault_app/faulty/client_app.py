"""A client that adds one to each number, unless the run's faults say otherwise.

`faults` is ``ROUND:CLIENT:FAULT`` for each, with spaces between: `nan`, `shape`, `huge`, or `hang`,
which leaves a file of its name when it has begun, and ends when there is a file `go`.
"""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from tests.strategies.offers_of import offer, report
from wattfed.strategies.codec import encode
from wattfed.strategies.protocol import CONFIG

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    return Message(
        RecordDict({CONFIG: ConfigRecord(encode(offer(context.node_config["partition-id"])))}),
        reply_to=message,
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    client = context.node_config["partition-id"]
    this = f"{message.content['config']['server-round']}:{client}:"
    faults = str(context.run_config["faults"]).split()
    fault = next((f.removeprefix(this) for f in faults if f.startswith(this)), "")
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    weights = weights + 1
    if fault == "nan":
        weights[0] = np.nan
    if fault == "shape":
        weights = weights[:3]
    if fault == "huge":
        weights = np.zeros(8_000_000, dtype=np.float32)
    if fault == "hang":
        out = Path(context.run_config["out-dir"])
        (out / (this.replace(":", "-") + "hang")).touch()
        while not (out / "go").exists():
            time.sleep(0.1)
    content = {
        "arrays": ArrayRecord([weights]),
        "metrics": MetricRecord({"num-examples": 1}),
        CONFIG: ConfigRecord(encode(report(client))),
    }
    return Message(RecordDict(content), reply_to=message)
