"""The engine of the virtual clock selects and trains as the ClientApp does by message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.in_process_grid import InProcessGrid
from tests.fleets import WILD
from tests.strategies.watching import WATCHING, Watching
from wattfed.client.app import app as client_app
from wattfed.server.engines.flower import run_federation
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.studies


@pytest.fixture
def config(tmp_path):
    return RunConfig(out_dir=str(tmp_path), rounds=3, local_epochs=1, name="virtual")


def by_message(config):
    grid = InProcessGrid(client_app, 20, config.to_flower())
    return run_federation(grid, replace(config, name="messages", min_nodes=20))


def model(result):
    return torch.load(result.folder / "model.pt")


@pytest.mark.parametrize(
    ("strategy", "aggregation", "power"),
    [
        ("pace", "fedprox", "slack"),
        ("oort", "fedadam", "maxn"),
        ("refl", "fedmedian", "fastest"),
        ("fedcs", "fedavg", "preset"),
        ("random", "multikrum", "slack"),
    ],
)
def test_both_engines_agree(config, strategy, aggregation, power):
    config = replace(config, strategy=strategy, aggregation=aggregation, power=power)
    virtual, messages = simulate(config), by_message(config)
    assert virtual.rows == messages.rows
    assert virtual.ledger.reports == messages.ledger.reports
    ours, theirs = model(virtual), model(messages)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_they_agree_on_the_sums_of_many(config):
    config = replace(config, strategy="random", aggregation="fedavg", per_round=18, rounds=2)
    virtual, messages = simulate(config), by_message(config)
    assert virtual.rows == messages.rows
    ours, theirs = model(virtual), model(messages)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "options",
    [{"over_commit": 1.5}, {"over_commit": 1.5, "late": "refl"}, {"buffer": 3, "late": "fedbuff"}],
)
def test_they_agree_on_who_is_late(config, options):
    config = replace(config, strategy="random", rounds=4, **options)
    virtual, messages = simulate(config), by_message(config)
    assert virtual.rows == messages.rows
    ours, theirs = model(virtual), model(messages)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_they_agree_on_updates_that_are_too_long(config):
    clipped = replace(config, strategy="random", clip_norm=0.5)
    virtual, messages = simulate(clipped), by_message(clipped)
    assert virtual.rows == messages.rows
    free = simulate(replace(clipped, clip_norm=0.0, name="free"))
    assert virtual.rows[-1].metrics["loss"] != free.rows[-1].metrics["loss"]


@pytest.mark.parametrize(
    "options",
    [
        {"per_round": 12},
        {"clip_norm": 0.5},
        {"aggregation": "fedmedian"},
        {"over_commit": 1.5, "late": "refl"},
    ],
)
def test_they_tell_a_policy_the_same_of_updates(config, options):
    config = replace(config, strategy=WATCHING, rounds=2, **options)
    simulate(config)
    virtual = Watching.last.told
    by_message(config)
    assert virtual == Watching.last.told and len(virtual) == 2
    norms = [norm for told in virtual for norm, _ in told.values()]
    assert len(norms) >= 6 and min(norms) > 0


@pytest.mark.parametrize("power", ["slack", "maxn"])
def test_they_agree_on_what_goes_on_around_clients(config, tmp_path, power):
    (tmp_path / "wild.toml").write_text(WILD)
    wild = replace(
        config, fleet=str(tmp_path / "wild.toml"), task="noop", strategy="random", rounds=12,
        power=power,
    )  # fmt: skip
    virtual, messages = simulate(wild), by_message(wild)
    assert repr(virtual.rows) == repr(messages.rows)  # who declines has no loss: NaN
    assert repr(virtual.ledger.reports) == repr(messages.ledger.reports)
    lost = {report.lost for _, report in virtual.ledger.reports}
    assert {"left", "crashed", "silent"} <= lost
    entries = virtual.ledger.entries
    assert sum(entry.failed for entry in entries) == sum(
        bool(report.lost) for _, report in virtual.ledger.reports
    )
    assert all(entry.wasted_energy_j > 0 for entry in entries if entry.failed)
    assert sum(entry.inference_energy_j for entry in entries) > 0


def test_minibatches_of_the_noop_task_are_charged_and_teach_nothing(config):
    result = simulate(replace(config, task="noop", strategy="random"))
    entries = result.ledger.entries
    assert all(entry.reported == 6 and entry.train_energy_j > 0 for entry in entries)
    assert np.ptp([row.metrics["loss"] for row in result.rows]) < 1e-6
