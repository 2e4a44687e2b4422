"""A user's own task under control beside the same loop alone: the same weights, at what cost.

    python -m benchmarks.own_task [--task FILE.py[,FILE.py]] [--set KEY=VALUE] --json OUT

Without ``--task``, every task that the tests hold. Both train on the same minibatches from the same
seeds; alone, the loop is cut off by an exception where the plan ends.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from powerctl.task.data import Loaders, load_data, minibatches_of
from powerctl.task.loading import Task, load_task
from powerctl.task.metrics import number_of
from powerctl.task.randomness import Randomness, seed_loader
from powerctl.task.settings import parse_settings
from powerctl.task.training import Interrupted, Training, make_model

TASKS = Path(__file__).resolve().parents[1] / "tests" / "powerctl" / "task" / "tasks"
SEED = 7
_EPOCHS = 2.5  # so that the plan ends amid an epoch; a stream has no length, and is cut as well
_OF_A_STREAM = 3
_REPEATED = 7  # the medians of all that they took are compared


def usual_settings(folder: Path) -> dict[str, Any]:
    """What the tasks of the tests ask for, with a folder of files for the one that reads some."""
    rng = np.random.default_rng(0)
    for i in range(12):
        np.save(folder / f"{i:02}-{i % 2}.npy", rng.normal(size=9))
    return {"dataset-path": str(folder), "hidden-size": 8, "learning-rate": 0.01}


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


def compared(text: str, settings: Mapping[str, Any], minibatches: int = 0) -> dict[str, Any]:
    """The row of one task.

    Parameters
    ----------
    text : str
        Names the task.
    settings : mapping
        The user's own keys.
    minibatches : int
        Planned; by default two epochs and a half.
    """
    task = load_task(text, settings)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    given = {"device": device, "partition_id": 0, "num_partitions": 2, "batch_size": 8, "lr": 0.01}
    with Randomness(SEED):
        model = make_model(task, given)
        length = minibatches_of(load_data(task, given).train)
    planned = minibatches or (round(_EPOCHS * length) if length else _OF_A_STREAM)
    took_s: dict[str, list[float]] = {"alone": [], "controlled": []}
    trained: dict[str, nn.Module] = {}
    for _ in range(_REPEATED):
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
    parser.add_argument("--json", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)  # as a client has it: sums, and so weights, depend on it
    tasks = args.task.split(",") if args.task else sorted(map(str, TASKS.glob("*.py")))
    with tempfile.TemporaryDirectory() as folder:
        settings = usual_settings(Path(folder)) | parse_settings(args.set)
        rows = [compared(task, settings) for task in tasks]
    for row in rows:
        print(
            f"{row['task']:<14} {row['style']}  {row['minibatches']:>3} of {row['planned']:<3}  "
            f"max |dw| {row['max_abs_dw']:g}  {row['overhead_us_per_step']:+.0f} us a step"
        )
    Path(args.json).write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
