"""A user's own task under control beside the same loop alone: the same weights, at what cost.

    python -m benchmarks.own_task [--task FILE.py[,...]] [--set KEY=VALUE] [--deployed] --json OUT

Without ``--task``, every task that the tests hold. Both train on the same minibatches from the same
seeds; alone, the loop is cut off by an exception where the plan ends. A minibatch is counted, and
beside that stand its time on this host, the FLOP of products as torch's own counter has them while
it runs, and what a roofline of this host's ceilings makes of the counts; nothing here can measure
bytes. Then two clients learn the task for two rounds, in the virtual engine and, with
``--deployed``, on a SuperLink.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from powerctl.accelerator import Accelerator
from powerctl.errors import PowerctlError
from powerctl.pagoda.ceilings import Ceilings
from powerctl.pagoda.microbenchmarks import measure_ceilings
from powerctl.pagoda.operator_counter import plain_kernels
from powerctl.pagoda.step_counting import count_step
from powerctl.pagoda.vendor import core_hz
from powerctl.task.data import Loaders, load_data, minibatches_of
from powerctl.task.loading import Task, keys_of, load_task, parse_settings
from powerctl.task.randomness import Randomness, seed_loader
from powerctl.task.returned_metrics import number_of
from powerctl.task.training import Interrupted, Training, make_model
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.run_config import RunConfig, run_keys

TASKS = Path(__file__).resolve().parents[1] / "tests" / "powerctl" / "task" / "tasks"
SEED = 7
_EPOCHS = 2.5  # so that the plan ends amid an epoch; a stream has no length, and is cut as well
_OF_A_STREAM = 3
_APP = """[project]
name = "own-task"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.30"]

[tool.flwr.app]
publisher = "wattfed"

[tool.flwr.app.components]
serverapp = "wattfed.server.app:app"
clientapp = "wattfed.client.app:app"

[tool.flwr.app.config]"""
_TIMED = 40  # minibatches, of which the median is the time
_PRODUCTS = ("convolution", "mm", "attention")  # what torch's own counter has a formula of
_REPEATED = 7  # the medians of all that they took are compared


def usual_settings(folder: Path) -> dict[str, Any]:
    """What the tasks of the tests ask for, with a folder of files for the one that reads some."""
    rng = np.random.default_rng(0)
    for i in range(12):
        np.save(folder / f"{i:02}-{i % 2}.npy", rng.normal(size=9))
    return {"dataset-path": str(folder), "hidden-size": 8, "learning-rate": 0.01}


def usual_given() -> dict[str, Any]:
    """What the run gives a task beside its settings."""
    return {
        "device": Accelerator.here().device,
        "partition_id": 0,
        "num_partitions": 2,
        "batch_size": 8,
        "lr": 0.01,
    }


class CutOff(Exception):
    """The plan of a loop that runs alone has ended."""


def alone(task: Task, model: nn.Module, given: Mapping[str, Any], minibatches: int) -> list[float]:
    """The user's loop as Python runs it; when it asked for each minibatch, in seconds."""
    with Randomness(SEED):
        loaders = load_data(task, given)
    seed_loader(loaders.train, SEED)
    asked_s: list[float] = []
    loader = _cut(loaders.train, minibatches, asked_s)
    length = minibatches_of(loaders.train)
    epochs = -(-minibatches // length) if length else 1
    given = {**given, "model": model, "epochs": epochs, "seed": SEED}
    given |= {"valloader": loaders.validation, "testloader": loaders.test}
    with Randomness(SEED):
        try:
            if task.has("train"):
                task.call("train", {**given, "loader": loader, "trainloader": loader})
                return asked_s
            model.train()
            optimizer = task.call("make_optimizer", given)
            while True:
                for batch in loader:
                    task.call("train_step", {**given, "optimizer": optimizer, "batch": batch})
        except Exception as error:
            if not isinstance(error.__cause__ or error, CutOff):
                raise
    return asked_s


def controlled(
    task: Task, model: nn.Module, given: Mapping[str, Any], minibatches: int
) -> list[float]:
    """The same under control; when each minibatch began, in seconds."""
    with Randomness(SEED):
        loaders: Loaders = load_data(task, given)
    training = Training(task, model, loaders, given, minibatches=minibatches, seed=SEED)
    began_s = []
    with training, suppress(Interrupted):  # a stream may have fewer
        for _, step in zip(range(minibatches), training.steps(), strict=False):
            began_s.append(time.perf_counter())
            step()
    return began_s[: training.minibatches]


def compared(
    text: str, settings: Mapping[str, Any], minibatches: int = 0, repeated: int = _REPEATED
) -> dict[str, Any]:
    """The row of one task.

    Parameters
    ----------
    text : str
        Names the task.
    settings : mapping
        The user's own keys.
    minibatches : int
        Planned; by default two epochs and a half.
    repeated : int
        How often it is done, for the medians of the times.
    """
    task = load_task(text, settings)
    given = usual_given()
    with Randomness(SEED):
        model = make_model(task, given)
        length = minibatches_of(load_data(task, given).train)
    planned = minibatches or (round(_EPOCHS * length) if length else _OF_A_STREAM)
    took_s: dict[str, list[float]] = {"alone": [], "controlled": []}
    trained: dict[str, nn.Module] = {}
    for _ in range(repeated):
        for name, run in (("alone", alone), ("controlled", controlled)):
            trained[name] = copy.deepcopy(model)
            stamps_s = run(task, trained[name], given, planned)
            took_s[name] += np.diff(stamps_s)[1:].tolist()  # the first has the setting up
    pairs = zip(_tensors(trained["alone"]), _tensors(trained["controlled"]), strict=True)
    return {
        "task": task.name,
        "style": "loop" if task.has("train") else "step",
        "minibatches": len(stamps_s),
        "planned": planned,
        "max_abs_dw": max(
            number_of((a.double() - b.double()).abs().max()) or 0.0 for a, b in pairs
        ),
        "moved": any(
            not torch.equal(a, b)
            for a, b in zip(_tensors(model), _tensors(trained["alone"]), strict=True)
        ),
        "overhead_us_per_step": 1e6
        * (np.median(took_s["controlled"]) - np.median(took_s["alone"])),
        "simulated": None,
        "deployed": None,
    }


def counted(text: str, settings: Mapping[str, Any], ceilings: Ceilings | None) -> dict[str, Any]:
    """What a minibatch of a task needs by its counts, and what it did on this host.

    Parameters
    ----------
    text : str
        Names the task.
    settings : mapping
        The user's own keys.
    ceilings : Ceilings, optional
        Of this host, in one thread; without, there is no time by the roofline.
    """
    task = load_task(text, settings)
    began_s = time.perf_counter()
    given = usual_given()
    step = count_step(task, "train", given)
    counting_s = time.perf_counter() - began_s
    counts = step.counts
    with Randomness(SEED):
        model = make_model(task, given)
        loaders = load_data(task, given)
    counter = FlopCounterMode(display=False)
    more: Any = {"seed": SEED, "limit_s": 600.0, "inside": counter}
    with plain_kernels(), Training(task, model, loaders, given, minibatches=1, **more) as training:
        next(training.steps())()
    began = np.array(controlled(task, model, given, _TIMED))
    row: dict[str, Any] = {
        "counted": {
            "flop": counts.flop,
            "dram_bytes": counts.dram_bytes,
            "kernels": counts.kernels,
            "known_share": counts.known_share,
            "is_computed": step.is_computed,
            "loader_s_per_sample": step.host_cycles_per_sample / (core_hz() or math.nan),
            "counting_s": counting_s,
            "products_flop": sum(
                operator.flop
                for operator in counts.operators
                if any(name in operator.name for name in _PRODUCTS)
            ),
        },
        "measured": {
            "time_s": float(np.median(np.diff(began)[1:])) if len(began) > 2 else None,
            "products_flop": counter.get_total_flops(),
        },
    }
    if ceilings is not None:
        row["counted"]["roofline_time_s"] = max(
            counts.flop / ceilings.peak_flops, counts.dram_bytes / ceilings.peak_bandwidth
        )
    return row


def run_config(text: str, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Two rounds of two clients, in Flower's keys, with the settings that the task asks for."""
    fleet = folder / "two.toml"
    fleet.write_text('[[group]]\nboard = "orin-nano"\ncount = 2\n')
    asked = {*run_keys(), *keys_of(load_task(text, settings))}
    config = RunConfig(
        task=str(Path(text).resolve()) if text.endswith(".py") else text,
        fleet=str(fleet),
        strategy="all",
        rounds=2,
        per_round=2,
        min_nodes=2,
        local_epochs=1,
        evaluate_share=1.0,
        seed=SEED,
        out_dir=str(folder),
    )
    own = {"batch-size": 8, **settings}
    return config.to_flower() | {key: own[key] for key in own.keys() & asked}


def simulated(config: Mapping[str, Any]) -> float | None:
    """The target metric after a run in the virtual engine."""
    return _final(simulate(RunConfig.from_flower({**config, "name": "simulated"})).folder)


def deployed(configs: Sequence[Mapping[str, Any]], folder: Path) -> list[float | None]:
    """The same after each run, one after another, on a SuperLink with two SuperNodes."""
    from tests.federation import COMPLETED, Federation

    nodes = [
        {"partition-id": client, "num-partitions": 2, "device": "twin:orin-nano"}
        for client in range(2)
    ]
    found: list[float | None] = []
    with Federation(folder / "federation", nodes) as federation:
        for number, config in enumerate(configs):
            app = folder / f"app-{number}"
            app.mkdir()
            config = {**config, "name": f"deployed-{number}"}
            pairs = (f"{key} = {json.dumps(value)}" for key, value in config.items())
            (app / "pyproject.toml").write_text("\n".join([_APP, *pairs, ""]))
            status = federation.run(app, {}, timeout_s=600).status
            run = Path(config["out-dir"]) / config["name"]
            found.append(_final(run) if status == COMPLETED else None)
    return found


def _final(run: Path) -> float | None:
    """The last value of the metric that a run is judged by."""
    told = json.loads((run / "summary.json").read_text())
    value = told.get("final", told.get("final_accuracy"))
    return None if value is None else float(value)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return (tensor.cpu() for tensor in model.state_dict().values())


def _cut(loader: Any, minibatches: int, asked_s: list[float]) -> Any:
    """The same loader, which raises after so many minibatches, and notes the time of each."""

    def iterate(self: Any) -> Iterator[Any]:
        inner = kind.__iter__(self)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(inner)
            except StopIteration:
                return
            if len(asked_s) == minibatches:
                raise CutOff
            asked_s.append(asked)
            yield batch

    kind: Any = type(loader)
    like = copy.copy(loader) if kind is not list else _List(loader)
    kind = type(like).__mro__[1] if kind is list else kind
    like.__class__ = type(kind.__name__, (kind,), {"__iter__": iterate})
    return like


class _List(list[Any]):
    """A list whose class can be changed."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--task", help="files or modules, with commas between; default: the tests'")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--deployed", action="store_true", help="on a SuperLink too: minutes")
    parser.add_argument("--json", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)  # as a client has it: sums, and so weights, depend on it
    tasks = args.task.split(",") if args.task else sorted(map(str, TASKS.glob("*.py")))
    with tempfile.TemporaryDirectory() as folder:
        settings = usual_settings(Path(folder)) | parse_settings(args.set)
        ceilings = measure_ceilings(Accelerator.here(), seconds=0.1)
        rows = [compared(task, settings) | counted(task, settings, ceilings) for task in tasks]
        configs = {}
        for number, (task, row) in enumerate(zip(tasks, rows, strict=True)):
            place = Path(folder) / str(number)
            place.mkdir()
            configs[number] = run_config(task, settings, place)
            try:
                row["simulated"] = simulated(configs[number])
            except PowerctlError as error:
                print(f"{row['task']}: {error}", file=sys.stderr)
                del configs[number]
        if args.deployed:
            found = deployed([*configs.values()], Path(folder))
            for number, value in zip(configs, found, strict=True):
                rows[number]["deployed"] = value
    for row in rows:
        print(
            f"{row['task']:<14} {row['style']}  {row['minibatches']:>3} of {row['planned']:<3}  "
            f"max |dw| {row['max_abs_dw']:g}  {row['overhead_us_per_step']:+.0f} us a step  "
            f"simulated {_shown(row['simulated'])}, deployed {_shown(row['deployed'])}"
        )
    print("a minibatch of each, counted | measured on this host")
    for row in rows:
        of, seen = row["counted"], row["measured"]
        print(
            f"{row['task']:<14} {of['flop']:>9.3g} FLOP, {of['products_flop']:>9.3g} of products, "
            f"{of['dram_bytes']:>9.3g} B, {of['kernels']:>4} kernels, roofline "
            f"{1e3 * of['roofline_time_s']:.3g} ms, loader "
            f"{1e3 * of['loader_s_per_sample']:.3g} ms a sample | "
            f"{seen['products_flop']:>9.3g} FLOP of products, "
            f"{_shown(seen['time_s'] and 1e3 * seen['time_s'])} ms"
        )
    Path(args.json).write_text(json.dumps(rows, indent=2))


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
