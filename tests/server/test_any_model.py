"""A model with buffers of every kind and tied weights learns in the engines, however aggregated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from flwr.app import ConfigRecord
from torch import nn

from benchmarks.in_process_grid import InProcessGrid
from powerctl.errors import InvalidInput
from tests.strategies.offers_of import offer, report
from tests.tasks import evaluate, training_on
from wattfed.client.app import app as client_app
from wattfed.client.tasks import federated, noop
from wattfed.client.tasks.sampled import Samples
from wattfed.client.worker.model_arrays import arrays_of, load_arrays
from wattfed.server.engines.flower import run_federation
from wattfed.server.engines.simulation import simulate
from wattfed.server.engines.virtual import join_run
from wattfed.server.run.federation import run_rounds
from wattfed.server.run.participants import Participants
from wattfed.strategies.offers import Offers
from wattfed.strategies.round.aggregation import AGGREGATIONS
from wattfed.strategies.round.numpy_reply import NumpyReply
from wattfed.strategies.round.strategy import TrainingAnswer
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.studies

CLIENTS, LABELS = 20, 4


class Net(nn.Module):
    """Its first two layers share their weight; an index and a mask are used, and never change."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8, bias=False)
        self.again = nn.Linear(8, 8)
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, LABELS).to(dtype)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("index", torch.arange(7, -1, -1))
        self.register_buffer("far", torch.tensor([2**40 + 1, -1]))
        self.register_buffer("mask", torch.arange(8) != 3)
        self.register_buffer("none", torch.zeros(0, 2))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(inputs[:, self.index] * self.mask)))
        hidden = self.scale * self.again(hidden)
        return self.head(hidden.to(self.head.weight.dtype)).float()


class AnyTask:
    """Seventeen samples for each client, whose last minibatch is of one."""

    name = "noop"
    dtype = torch.float32

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        inputs = torch.randn(17 * CLIENTS + 200, 8, generator=draw)
        labels = inputs[:, :LABELS].argmax(dim=1)
        self._train = Samples(inputs[200:], labels[200:])
        self._test = Samples(inputs[:200], labels[:200])

    def model(self) -> nn.Module:
        return Net(self.dtype)

    def train_samples(self) -> Samples:
        return self._train

    def test_samples(self) -> Samples:
        return self._test


class Half(AnyTask):
    """With parameters in bfloat16, which NumPy has not."""

    dtype = torch.bfloat16


def forget_tasks():
    for cache in (
        federated._of_run,
        federated._federated,
        federated._loaded,
        federated._of_samples,
    ):
        cache.cache_clear()


@pytest.fixture
def learns(monkeypatch):
    """Puts a task in the place of noop."""

    def put(task):
        monkeypatch.setattr(noop, "Noop", task)
        forget_tasks()

    yield put
    forget_tasks()


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        task="noop",
        out_dir=str(tmp_path),
        strategy="random",
        skew="iid",
        rounds=4,
        local_epochs=8,
        per_round=7,
        workers=1,
        name="virtual",
    )


def final(result):
    return torch.load(result.folder / "model.pt", weights_only=True)


def is_sound(result):
    fresh, state = Net(torch.float32).state_dict(), final(result)
    assert all(torch.isfinite(array).all() for array in state.values())
    assert (state["norm.running_var"] > 0).all()
    assert not torch.equal(state["norm.running_var"], fresh["norm.running_var"])
    assert state["norm.num_batches_tracked"] >= result.rows[-1].round
    assert torch.equal(state["first.weight"], state["again.weight"])
    for name in ("index", "far", "mask", "none"):
        assert torch.equal(state[name], fresh[name]) and state[name].dtype == fresh[name].dtype
    return True


@pytest.mark.parametrize("aggregation", AGGREGATIONS.names())
def test_every_aggregation_keeps_the_model_sound(learns, config, aggregation):
    learns(AnyTask)
    result = simulate(replace(config, aggregation=aggregation))
    assert is_sound(result)
    assert all(entry.reported == 7 for entry in result.ledger.entries)
    if aggregation in ("fedavg", "multikrum", "fedmedian"):
        assert result.rows[-1].metrics["loss"] < 0.9 * result.rows[0].metrics["loss"]


@pytest.mark.parametrize("late", ["fedbuff", "refl"])
def test_late_updates_keep_it_sound(learns, config, late):
    learns(AnyTask)
    result = simulate(replace(config, buffer=3, late=late, aggregation="fedadam", rounds=12))
    assert is_sound(result) and sum(entry.stale for entry in result.ledger.entries) > 0


@pytest.mark.parametrize("aggregation", ["fedadam", "fedavg", "multikrum"])
def test_the_engines_agree(learns, config, aggregation):
    learns(AnyTask)
    config = replace(config, aggregation=aggregation, clip_norm=1.0, rounds=3)
    virtual = simulate(config)
    grid = InProcessGrid(client_app, CLIENTS, config.to_flower())
    messages = run_federation(grid, replace(config, name="messages", min_nodes=CLIENTS))
    assert virtual.rows == messages.rows
    ours, theirs = final(virtual), final(messages)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class ThreeClients:
    """An engine whose clients load and send the model's arrays as `client.model_arrays` has it."""

    def __init__(self, task) -> None:
        join_run(1)
        self.task = task

    def run(self, strategy, arrays, after_round):
        model = self.task.model()
        for server_round in range(1, 6):
            strategy.select(server_round, Offers.of([offer(client) for client in range(3)]))
            list(strategy.instruct(server_round, arrays, ConfigRecord(), [1]))
            answers = []
            for client in range(3):
                load_arrays(model, arrays)
                samples = self.task.train_samples()
                with training_on(model, samples, 64, seed=3 * server_round + client) as training:
                    for _, step in zip(range(10), training.steps(), strict=False):
                        step()
                reply = NumpyReply(arrays_of(model), {"num-examples": 640})
                answers.append(TrainingAnswer(report(client), reply))
            arrays = strategy.close(server_round, answers)[0]
            after_round(server_round, arrays)

    def state(self):
        return {}

    def participants(self, strategy, offers):
        return Participants.of(offers, ["three"] * len(offers), {})


def test_a_model_in_half_precision_is_started_evaluated_and_saved_in_it(learns, config):
    learns(Half)
    config = replace(config, aggregation="fedavgm")
    result = run_rounds(ThreeClients(Half()), config)
    assert result.rows[-1].value > 0.7 and final(result)["head.weight"].dtype == torch.bfloat16
    assert is_sound(result)


def test_a_model_in_half_precision_is_simulated(learns, config):
    learns(Half)
    result = simulate(config)
    assert result.rows[-1].value > 0.7 and final(result)["head.weight"].dtype == torch.bfloat16


@pytest.fixture
def checkpoint(tmp_path):
    """A model that another run left, and its path."""
    torch.manual_seed(5)
    model = Net(torch.float32)
    torch.save({"epoch": 3, "model": model.state_dict()}, tmp_path / "start.pt")
    return model, str(tmp_path / "start.pt")


def test_a_run_starts_from_a_checkpoint(learns, config, checkpoint):
    learns(AnyTask)
    model, path = checkpoint
    started, fresh = (simulate(replace(config, start_from=p, name=n)) for p, n in
                      ((path, "started"), ("", "fresh")))  # fmt: skip
    metrics = evaluate(model, AnyTask().test_samples())
    assert started.rows[0].metrics == metrics != fresh.rows[0].metrics


def test_it_goes_on_only_where_it_started_from_the_same(learns, config, checkpoint):
    learns(AnyTask)
    _, path = checkpoint
    started = replace(config, start_from=path)
    whole = simulate(replace(started, name="whole"))
    simulate(replace(started, rounds=2))
    with pytest.raises(InvalidInput, match=f"start-from was {path}, not ;"):
        simulate(replace(config, resume=True))
    assert simulate(replace(started, resume=True)).rows == whole.rows


def test_what_a_run_cannot_start_from_is_said_before_anything_is_written(learns, config, tmp_path):
    learns(AnyTask)
    torch.save(nn.Linear(1, 1).state_dict(), tmp_path / "other.pt")
    for name, message in (("none.pt", "no such file"), ("other.pt", "of another model")):
        with pytest.raises(InvalidInput, match=message):
            simulate(replace(config, start_from=str(tmp_path / name)))
    assert not (tmp_path / "virtual").exists()
