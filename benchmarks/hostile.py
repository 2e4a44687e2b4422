"""Which aggregation withstands which attack: accuracy on digits, of twelve clients two hostile.

python -m benchmarks.hostile --rounds 4
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from benchmarks.in_process_grid import InProcessGrid
from powerctl import console
from powerctl.console import table_lines
from wattfed.client.app import app as honest
from wattfed.server.engines.flower import run_federation
from wattfed.strategies.run_config import RunConfig

CLIENTS, HOSTILE = 12, 2
Change = Callable[[NDArray[Any], NDArray[Any], np.random.Generator], NDArray[Any]]
# what is sent in place of an array, from that before training and that after it
ATTACKS: Mapping[str, Change] = {
    "none": lambda before, after, rng: after,
    "turned round": lambda before, after, rng: 2 * before - after,
    "turned, 5 x": lambda before, after, rng: 6 * before - 5 * after,
    "100 x": lambda before, after, rng: before + 100 * (after - before),
    "noise": lambda before, after, rng: before + rng.normal(0, 1, before.shape),
    "nothing": lambda before, after, rng: before,
}
DEFENCES: Mapping[str, Mapping[str, Any]] = {
    "fedavg": {},
    "fedavg, clip-norm 1": {"clip_norm": 1.0},
    **{
        name: {"aggregation": name}
        for name in ("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")
    },
}


def app_that(change: Change) -> ClientApp:
    """The clients, of which the first change what they have trained."""
    app = ClientApp()
    app.query()(honest)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before = {
            name: array.numpy().copy()
            for name, array in message.content.array_records["arrays"].items()
        }
        reply = honest(message, context)
        client = int(context.node_config["partition-id"])
        if client < HOSTILE:
            round_number = int(str(message.content.config_records["config"]["server-round"]))
            rng = np.random.default_rng((client, round_number))
            arrays = {
                name: array.numpy() for name, array in reply.content.array_records["arrays"].items()
            }
            changed = {
                n: change(before[n], one, rng).astype(one.dtype) for n, one in arrays.items()
            }
            reply.content["arrays"] = ArrayRecord({n: Array(one) for n, one in changed.items()})
        return reply

    return app


def accuracy(folder: Path, change: Change, rounds: int, **options: Any) -> float:
    """Of the model after some rounds."""
    fleet = folder / "fleet.toml"
    fleet.write_text(f'[[group]]\nboard = "orin-agx"\ncount = {CLIENTS}\n')
    config = RunConfig(
        fleet=str(fleet),
        strategy="all",
        rounds=rounds,
        per_round=CLIENTS,
        min_nodes=CLIENTS,
        dirichlet_alpha=5.0,
        hostile=HOSTILE,
        out_dir=str(folder / "runs"),
        checkpoint_every=0,
        **options,
    )
    grid = InProcessGrid(app_that(change), CLIENTS, config.to_flower())
    return run_federation(grid, config).rows[-1].value or 0.0


@click.command(help=__doc__)
@click.option("--rounds", default=4, show_default=True, type=click.IntRange(min=1))
def main(rounds: int) -> None:
    """Run the benchmark."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows: list[tuple[object, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, options in DEFENCES.items():
            found = (
                accuracy(Path(folder), change, rounds, **options) for change in ATTACKS.values()
            )
            rows.append((name, *(f"{value:.2f}" for value in found)))
    click.echo("\n".join(table_lines(("", *ATTACKS), rows)))


if __name__ == "__main__":
    console.run(main)
