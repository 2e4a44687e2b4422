"""A task as a federation learns it: a model, the data of each client, a metric that counts."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from powerctl.errors import InvalidInput, TaskFailed, UnknownName
from powerctl.modes import FloatArray, IntArray
from powerctl.plugins import Kind, load_object, parsed
from powerctl.task import data
from powerctl.task.arguments import filled
from powerctl.task.data import Loaders, examples_of, minibatches_of
from powerctl.task.loading import Task, keys_of, raised_in
from powerctl.task.loading import load_task as load_own
from powerctl.task.loop_thread import end_iterator
from powerctl.task.randomness import Randomness
from powerctl.task.training import GIVEN, Evaluation, Training, make_model
from wattfed.client.tasks.sampled import Sampled, SampledTask
from wattfed.strategies.run_config import RunConfig, run_keys

if TYPE_CHECKING:
    from powerctl.pagoda.counted import CountedTask
    from wattfed.client.worker.charging import Charge

TASKS = Kind[Sampled](
    "task",
    "wattfed.tasks",
    {
        "cifar10": "wattfed.client.tasks.cifar10:Cifar10",
        "digits": "wattfed.client.tasks.digits:Digits",
        "fashion-mnist": "wattfed.client.tasks.fashion_mnist:FashionMnist",
        "fortunes": "wattfed.client.tasks.fortunes:Fortunes",
        "images-cnn": "wattfed.client.tasks.images:ImagesCnn",
        "images-mlp": "wattfed.client.tasks.images:ImagesMlp",
        "noop": "wattfed.client.tasks.noop:Noop",
    },
    Sampled,
    fixed=("data_dir",),
)
_OF_CLIENT = {"partition-id", "num-partitions"}  # told at each call: what is loaded is of all
_ENDLESS = 10**9
_PASSES = 10  # of a `test` over its loader, at most: one that never ends is given up
_KEPT_BYTES = 2**30  # of clients' data in one process, as far as loading it took memory
_OF_CLIENTS = {*GIVEN, "load_data", "num_examples", "label_counts"}  # what runs for one of them
Settings = tuple[tuple[str, Any], ...]


def is_installed(text: str) -> bool:
    """Whether a text names one of these, perhaps with parameters, and not code of its own."""
    name, _ = parsed("task", text)
    return name in TASKS.built_in or name in TASKS.names()


def is_built_in(text: str) -> bool:
    """Whether a text names a task that comes with wattfed."""
    return parsed("task", text)[0] in TASKS.built_in


class FederatedTask:
    """What server and clients of a run do with its task.

    Data is loaded only for the clients that are asked for, and only where a loader is needed.

    Parameters
    ----------
    task : Task
        The user's, or one of ours with the same functions.
    config : RunConfig
        The run.
    batch_size : int
        Of a minibatch, where the run's settings do not say it.
    samples : SampledTask, optional
        Of a task whose samples are in memory, which knows the sizes of all parts at once.

    Attributes
    ----------
    warm : set of str
        What has run for real in this process, of ``train`` and ``test``: the first minibatch of
        each allocates memory and chooses kernels.
    own_charge : Charge, optional
        What its minibatches cost, once that was counted.
    """

    def __init__(
        self, task: Task, config: RunConfig, batch_size: int, samples: SampledTask | None = None
    ) -> None:
        self.name, self.target, self.code_hash = task.name, task.target, task.code_hash
        self.task = replace(task, usual={"lr": config.learning_rate})
        self.samples = samples
        self.warm: set[str] = set()
        self.own_charge: Charge | None = None
        self._config = config
        self.batch_size = int(dict(config.settings).get("batch-size", batch_size))
        self._given: dict[str, Any] = {
            "batch_size": self.batch_size,
            "skew": config.split,
            "seed": config.seed,
        }
        if config.learning_rate != RunConfig.learning_rate:
            self._given["lr"] = config.learning_rate  # that of every run yields to their default
        if config.data_dir:
            self._given["path"] = config.data_dir
        self._limit_s = math.inf if samples is not None else config.timeout_s
        self._loading = raised_in(task.called("load_data"))
        self._kept: dict[tuple[int, int], tuple[Loaders, int]] = {}

    def check_arguments(self) -> None:
        """Raise `TaskFailed` if a function asks for what neither the run nor its settings give."""
        for role, function in self.task.functions.items():
            more = dict.fromkeys(GIVEN.get(role, ()))
            given = {**self._of_client(0, 1), **more} if role in _OF_CLIENTS else self._given
            filled(function, self.task.called(role), given, self.task.settings, self.task.usual)

    def model(self) -> nn.Module:
        """A fresh model of the task, with torch's own random initialisation."""
        return make_model(self.task, self._given)

    def first_model(self) -> nn.Module:
        """The model that a run begins with: whatever its initialisation draws is of the seed."""
        with Randomness(self._config.seed):
            return self.model()

    def sizes(self, clients: IntArray, n_clients: int) -> tuple[IntArray, IntArray]:
        """Examples of some clients, and minibatches in an epoch of each."""
        if self.samples is not None:
            sizes = self.samples.sizes(n_clients, self._config.split, self._config.seed)[clients]
            return sizes, -(-sizes // self.batch_size)
        found = [self._size(int(client), n_clients) for client in clients]
        examples, minibatches = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return examples, minibatches

    def label_counts(self, clients: IntArray, n_clients: int, privacy: float = 0.0) -> FloatArray:
        """Examples of each label of some clients, shape (n, labels); no labels where none are told.

        Parameters
        ----------
        clients : IntArray, shape (n,)
        n_clients : int
        privacy : float
            Where it is not 0, counts carry Laplace noise of scale 1 / privacy, drawn once. It is
            from the seed, so that a simulation can be repeated: a study of what noise costs. What
            deployed clients tell has noise of `wattfed.client.tasks.label_noise` in its place.
        """
        of_whom = np.arange(n_clients) if privacy else clients
        counts = self._counts(of_whom, n_clients)
        if privacy and counts.size:
            rng = np.random.default_rng((self._config.seed, 1))
            counts = counts + rng.laplace(0, 1 / privacy, counts.size).reshape(counts.shape)
            return counts[clients]
        return counts

    def training(
        self,
        model: nn.Module,
        client: int,
        n_clients: int,
        *,
        minibatches: int,
        seed: int,
        proximal_mu: float = 0.0,
        rate: float = 1.0,
        is_shared: bool = True,
    ) -> Training:
        """The training of a round; see `powerctl.task.training.Training`."""
        if self.samples is None:  # tasks of ours need none of it
            import_compiler()
        return Training(
            self.task,
            model,
            self._loaders(client, n_clients),
            self._of_client(client, n_clients),
            minibatches=minibatches,
            seed=seed,
            proximal_mu=proximal_mu,
            rate=rate,
            precision=self._config.precision,
            limit_s=self._limit_s,
            is_shared=is_shared,
        )

    def evaluation(
        self, model: nn.Module, client: int, n_clients: int, seed: int, is_shared: bool = True
    ) -> Evaluation:
        """The evaluation of a model with a client's own data."""
        return Evaluation(
            self.task,
            model,
            self._to_evaluate(client, n_clients),
            self._of_client(client, n_clients),
            seed=seed,
            limit_s=self._limit_s,
            is_shared=is_shared,
        )

    def counted(self, client: int, n_clients: int, folder: Path | None = None) -> CountedTask:
        """What counts a minibatch of a client, whose workload is the task's own."""
        from powerctl.pagoda.counted import CountedTask  # tasks of ours need none of it

        given, limit_s = self._of_client(client, n_clients), self._config.timeout_s
        return CountedTask(self.task, given=given, folder=folder, limit_s=limit_s)

    def first_batch(self, client: int, n_clients: int) -> Any:
        """A minibatch of a client, as its loader gives it; None where that gives none."""
        loader = self._loaders(client, n_clients).train
        with self._randomness(client):
            batches = iter(loader)
            batch = next(batches, None)
            end_iterator(batches)
        return batch

    def forget(self) -> None:
        """Let go of the clients' data that is kept for their next rounds."""
        self._kept.clear()

    def evaluation_size(self, client: int, n_clients: int) -> tuple[int | None, int]:
        """Examples that a client evaluates with, if they can be told, and minibatches at most."""
        loader = self._to_evaluate(client, n_clients)
        length = minibatches_of(loader)
        return examples_of(loader), _ENDLESS if length is None else max(1, _PASSES * length)

    def _to_evaluate(self, client: int, n_clients: int) -> Any:
        """The second loader of a client; the one that it trains with, where there is no other."""
        loaders = self._loaders(client, n_clients)
        return loaders.train if loaders.validation is None else loaders.validation

    @property
    def has_central_data(self) -> bool:
        """Whether the server can evaluate; no data is loaded to tell."""
        return self.task.has("central_data")

    @cached_property
    def central(self) -> Any:
        """The loader that the server evaluates with; None if the task has no central data."""
        with self._randomness():
            return data.central_data(self.task, self._given)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The metrics of a model on the central data, by the task's `test`."""
        seed = self._config.seed
        return Evaluation(
            self.task, model, self.central, self._given, seed=seed, limit_s=self._limit_s
        ).run()

    def _size(self, client: int, n_clients: int) -> tuple[int, int]:
        with self._asked(client, n_clients) as given:
            examples = data.num_examples(self.task, given)
        if examples is not None:
            return examples, -(-examples // self.batch_size)
        loader = self._loaders(client, n_clients).train
        minibatches = minibatches_of(loader)
        if minibatches is None:
            raise InvalidInput(
                f"{self.task.called('load_data')} returned a loader without a length: tell it by "
                "num_examples(partition_id, num_partitions)"
            )
        of_loader = examples_of(loader)
        return minibatches if of_loader is None else of_loader, minibatches

    def _counts(self, clients: IntArray, n_clients: int) -> FloatArray:
        if self.samples is not None:
            counts = self.samples.counts(n_clients, self._config.split, self._config.seed)
            everyone = np.array_equal(clients, np.arange(n_clients))
            return counts if everyone else counts[clients]
        told = [self._told(int(client), n_clients) for client in clients]
        width = max((len(one) for one in told if one is not None), default=0)
        counts = np.zeros((len(clients), width))
        for row, one in zip(counts, told, strict=True):
            if one is not None:
                row[: len(one)] = one
        return counts

    def _told(self, client: int, n_clients: int) -> IntArray | None:
        with self._asked(client, n_clients) as given:
            return data.label_counts(self.task, given)

    def _loaders(self, client: int, n_clients: int) -> Loaders:
        """The loaders of a client, which are kept for its next round as far as memory allows."""
        if self.samples is not None:  # all of them are in memory already
            split, seed = self._config.split, self._config.seed
            with self._loading:
                return self.samples.loaders(client, n_clients, self.batch_size, split, seed)
        kept, key = self._kept, (client, n_clients)
        if key not in kept:
            before = _resident_bytes()
            with self._asked(client, n_clients) as given:
                loaders = data.load_data(self.task, given)
            kept[key] = loaders, max(0, _resident_bytes() - before)
        kept[key] = kept.pop(key)  # the last ones are the newest
        while len(kept) > 1 and sum(size for _, size in kept.values()) > _KEPT_BYTES:
            del kept[next(iter(kept))]
        return kept[key][0]

    @contextmanager
    def _asked(self, client: int, n_clients: int) -> Iterator[dict[str, Any]]:
        """What a client's data is loaded with; what is drawn meanwhile is of run and client."""
        with self._randomness(client):
            yield self._of_client(client, n_clients)

    def _randomness(self, *of_whom: int) -> Randomness:
        entropy = np.random.SeedSequence((self._config.seed, *of_whom))
        return Randomness(int(entropy.generate_state(1)[0]))

    def _of_client(self, client: int, n_clients: int) -> dict[str, Any]:
        return {**self._given, "partition_id": client, "num_partitions": n_clients}


def import_compiler() -> None:
    """Have torch import its compiler, as its optimizers do, and who counts memory.

    It takes a second of processor time, which else the clock of a process's first round would show.
    """
    importlib.import_module("torch._dynamo")


def _resident_bytes() -> int:
    """The memory of this process that is in use now."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def federated(config: RunConfig, batch_size: int, node: Settings = ()) -> FederatedTask:
    """The task of a run, loaded once in a process; what it is called is looked up from the folder.

    Parameters
    ----------
    config : RunConfig
    batch_size : int
        What a minibatch is charged as.
    node : pairs of str and value, optional
        Keys of the node's own configuration, which the task's functions are given if they ask.

    Raises
    ------
    InvalidInput, UnknownName
        If there is no such task, it is not as it should be, or a key of the run's configuration is
        neither one of ours nor asked for by one of its functions.
    """
    return _of_run(config, batch_size, node, os.getcwd())


@lru_cache(maxsize=8)
def _of_run(config: RunConfig, batch_size: int, node: Settings, folder: str) -> FederatedTask:
    """A cache in front, which is quick to ask: runs that differ in other keys share a task."""
    alone = RunConfig(
        task=config.task,
        data_dir=config.data_dir,
        settings=config.settings,
        skew=config.split,
        seed=config.seed,
        learning_rate=config.learning_rate,
        precision=config.precision,
        timeout_s=config.timeout_s,
    )
    asked = _loaded(alone, folder)[2] - _OF_CLIENT
    own = tuple((key, value) for key, value in node if key in asked)
    return _federated(alone, batch_size, own, folder)


@lru_cache(maxsize=8)
def _federated(config: RunConfig, batch_size: int, node: Settings, folder: str) -> FederatedTask:
    task, samples, _ = _loaded(config, folder)
    return FederatedTask(task.with_settings(dict(node)), config, batch_size, samples)


@lru_cache(maxsize=8)
def _loaded(config: RunConfig, folder: str) -> tuple[Task, SampledTask | None, frozenset[str]]:
    """The task of a run, its samples if they are in memory, and the keys that it asks for."""
    samples = _of_samples(config.task, config.data_dir, folder)
    task = _own(config) if samples is None else load_own(samples, code_hash=samples.code_hash)
    accepted = keys_of(task) if samples is None else frozenset()
    for key, _ in config.settings:
        if key not in accepted:
            raise UnknownName("run-config key", key, {*run_keys(), *accepted})
    return task, samples, accepted


@lru_cache(maxsize=4)
def _of_samples(text: str, data_dir: str, folder: str) -> SampledTask | None:
    """A task of ours, or of what is installed, whose samples are read once; None for others."""
    name = parsed("task", text)[0]
    if is_installed(text) or (":" in name and hasattr(load_object(name), "train_samples")):
        return SampledTask(TASKS.make(text, data_dir=data_dir))
    return None


def _own(config: RunConfig) -> Task:
    """The task of a user, by the text that names it."""
    text = config.task
    try:
        return load_own(text, dict(config.settings))
    except TaskFailed as error:
        if "there is no module" in str(error):
            raise UnknownName("task", text, TASKS.names(), f"; {error}") from error
        raise
