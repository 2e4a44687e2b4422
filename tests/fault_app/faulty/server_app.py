"""Our strategy over a model of four numbers; what each round did goes to a JSON line at once."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp

from wattfed.strategies.policies.all_clients import AllClients
from wattfed.strategies.round.aggregation import make_aggregation
from wattfed.strategies.round.strategy import SelectingStrategy
from wattfed.strategies.run_config import RunConfig

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    out = Path(config["out-dir"])
    strategy = SelectingStrategy(
        AllClients(), make_aggregation(RunConfig()), per_round=3, timeout_s=config["timeout-s"]
    )

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if server_round:
            entry = asdict(strategy.ledger.entries[-1])
            entry["refusals"] = [vars(r) for r in strategy.ledger.refusals_of(server_round)]
            entry["model"] = float(arrays.to_numpy_ndarrays()[0][0])
            with open(out / "rounds.jsonl", "a") as file:
                file.write(json.dumps(entry) + "\n")
        return MetricRecord({"round": server_round})

    strategy.start(
        grid,
        ArrayRecord([np.zeros(4, dtype=np.float32)]),
        num_rounds=config["rounds"],
        timeout=config["timeout-s"],
        evaluate_fn=after_round,
    )
