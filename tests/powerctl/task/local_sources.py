"""Stand-ins for where Flower's examples get their data from: nothing is downloaded in tests."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np


class Rows:
    """As much of a `datasets.Dataset` as the examples use, over rows in memory."""

    def __init__(self, rows: list[dict[str, Any]], transform: Callable[[Any], Any] | None = None):
        self.rows = rows
        self.transform = transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if self.transform is None:
            return row
        batch = self.transform({key: [value] for key, value in row.items()})
        return {key: values[0] for key, values in batch.items()}

    def train_test_split(self, test_size=None, train_size=None, seed=0) -> Parts:
        share = train_size if train_size is not None else 1 - test_size
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(share * len(self))
        train, test = ([self.rows[i] for i in part] for part in (order[:cut], order[cut:]))
        return Parts(train=Rows(train, self.transform), test=Rows(test, self.transform))

    def with_transform(self, transform) -> Rows:
        return Rows(self.rows, transform)

    def map(self, function, batched) -> Rows:
        assert batched
        more = function({key: [row[key] for row in self.rows] for key in self.rows[0]})
        new = [dict(zip(more, values, strict=True)) for values in zip(*more.values(), strict=True)]
        return Rows([row | own for row, own in zip(self.rows, new, strict=True)])

    def remove_columns(self, name) -> Rows:
        return Rows([{k: v for k, v in row.items() if k != name} for row in self.rows])

    def rename_column(self, old, new) -> Rows:
        return Rows([{new if k == old else k: v for k, v in row.items()} for row in self.rows])


class Parts(dict):
    """As much of a `datasets.DatasetDict` as the examples use: what is done, is done to each."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: Parts(
            {key: getattr(rows, name)(*args, **kwargs) for key, rows in self.items()}
        )


class Accuracy:
    """The metric that `evaluate.load` gives."""

    def __init__(self) -> None:
        self.hits: list[float] = []

    def add_batch(self, predictions, references) -> None:
        self.hits += (predictions == references).float().tolist()

    def compute(self) -> dict[str, float]:
        return {"accuracy": float(np.mean(self.hits))}


def modules(rows: Callable[[str], Rows]) -> dict[str, types.ModuleType]:
    """The modules that the examples import, whose data sets are `rows` of a name or path."""

    class FederatedDataset:
        def __init__(self, dataset: str, partitioners: dict[str, Any]) -> None:
            self.name = dataset

        def load_partition(self, partition_id: int, split: str = "train") -> Rows:
            return rows(f"{self.name} {partition_id}")

    def from_disc(path: str) -> Parts:
        return rows(path).train_test_split(test_size=0.2)

    made = {
        "datasets": {"load_dataset": rows, "load_from_disk": from_disc},
        "datasets.utils": {},
        "datasets.utils.logging": {"disable_progress_bar": lambda: None},
        "evaluate": {"load": lambda name: Accuracy()},
        "flwr_datasets": {"FederatedDataset": FederatedDataset},
        "flwr_datasets.partitioner": {"IidPartitioner": lambda num_partitions: None},
    }
    found = {}
    for name, content in made.items():
        found[name] = types.ModuleType(name)
        vars(found[name]).update(content, __path__=[])
    return found
