"""A client that adds one to each number, unless the run's faults say otherwise.

`faults` is ``ROUND:CLIENT:FAULT`` for each, with spaces between: `nan`, `shape`, `huge`, `hang`,
which leaves a file of its name when it has begun, and ends when there is a file `go`; or an attack
of `tests.hostile.attacks`.
"""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from tests.hostile.attacks import BYTES, REPORTS, WEIGHTS, offered, trained
from tests.strategies.offers_of import offer, report
from wattfed.strategies.protocol import CONFIG, encode_record

app = ClientApp()


def fault_of(message: Message, context: Context) -> str:
    this = f"{message.content['config']['server-round']}:{context.node_config['partition-id']}:"
    faults = str(context.run_config["faults"]).split()
    return next((f.removeprefix(this) for f in faults if f.startswith(this)), "")


@app.query()
def query(message: Message, context: Context) -> Message:
    node = context.node_config
    own = offer(node["partition-id"], n_clients=node["num-partitions"])
    record = offered(fault_of(message, context), encode_record(own))
    return Message(RecordDict({CONFIG: record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    client, fault = context.node_config["partition-id"], fault_of(message, context)
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
        (out / f"{message.content['config']['server-round']}-{client}-hang").touch()
        while not (out / "go").exists():
            time.sleep(0.1)
    if fault in {*BYTES, *REPORTS, *WEIGHTS}:
        return Message(trained(fault, encode_record(report(client)), weights), reply_to=message)
    content = {
        "arrays": ArrayRecord([weights]),
        "metrics": MetricRecord({"num-examples": 1}),
        CONFIG: ConfigRecord(encode_record(report(client))),
    }
    return Message(RecordDict(content), reply_to=message)
