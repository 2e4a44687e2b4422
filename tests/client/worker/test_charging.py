"""What minibatches are charged as: the task's own workload, unless a run names another one."""

from __future__ import annotations

import textwrap
from dataclasses import replace

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.durable import write_output
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.workload import load_workload
from wattfed.client.fleet import load_fleet
from wattfed.client.fleet.fleet import transfer_s
from wattfed.client.tasks import federated as tasks
from wattfed.client.worker.charging import charge_of_fleet
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.local_client import LocalClient
from wattfed.client.worker.pool import Pool
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

TASK = """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    SIZES, counted = (3, 40, 8), []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(100, 10), nn.BatchNorm1d(10)

        def forward(self, x):
            return self.norm(self.layer(x))

    def num_examples(partition_id):
        return SIZES[partition_id]

    def load_data(partition_id, batch_size):
        counted.append(partition_id)
        data = [(torch.ones(100), 0)] * SIZES[partition_id]
        return DataLoader(data, batch_size), None

    def train_step(model, batch, optimizer):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss

    def test(net, loader):
        return {"accuracy": 1.0}
"""
FLEET = """
    [[group]]
    board = "orin-agx"
    count = 2
    link_mbit_s = 8
    [[group]]
    board = "orin-nano"
    count = 1
    link_mbit_s = 8
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of the task above, some of its text replaced; nothing is known of it yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    (tmp_path / "fleet.toml").write_text(textwrap.dedent(FLEET))
    folders = iter(range(9))

    def make(*changes: tuple[str, str], **options: object) -> RunConfig:
        text = textwrap.dedent(TASK)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        folder = tmp_path / f"app{next(folders)}"
        folder.mkdir()
        (folder / "my_task.py").write_text(text)
        fleet = str(tmp_path / "fleet.toml")
        return RunConfig(
            task=str(folder / "my_task.py"), fleet=fleet, rounds=1, out_dir=str(tmp_path / "runs")
        ).changed(workers=1, **options)

    return make


def forget_tasks() -> None:
    """Let this process know as little as one that has just begun."""
    for cache in (tasks._of_run, tasks._federated, tasks._loaded):
        cache.cache_clear()


def client_of(config: RunConfig, number: int = 1, **more: object) -> LocalClient:
    return LocalClient(config, load_fleet(config.fleet)[number], 3, ClientState(), **more)


def test_a_task_of_ones_own_is_its_own_workload_counted_from_a_whole_minibatch(run):
    charge, task = charge_of_fleet(run(), 3)
    name, _, size = charge.workload.name.partition("-b")
    assert name == f"my_task@{name[-8:]}" and size == "16"
    assert charge.workload.batch_size == 16  # not the 3 examples of the first client
    assert str(charge) == f"{charge.workload.name} (counted)"
    needed = charge.workload.signature
    assert 0 < needed.flop_per_sample < load_workload("mobilenetv3-train").signature.flop_per_sample
    assert task.task.own.counted == [1]


def test_it_is_counted_once_also_for_processes_to_come(run):
    config = run()
    charge, task = charge_of_fleet(config, 3)
    assert charge_of_fleet(config, 3)[0] is charge
    forget_tasks()
    again, loaded = charge_of_fleet(config, 3)
    assert again == charge and loaded is not task and task.task.own.counted == [1]


def test_other_code_another_size_and_other_settings_are_other_workloads(run):
    changes = (
        ("nn.Linear(100, 10)", "nn.Linear(100, width)"),
        ("__init__(self)", "__init__(self, width=10)"),
    )
    configs = [
        run(*changes),
        run(*changes, ("8)", "9)")),
        run(*changes, settings={"batch-size": 8}),
    ]
    configs.append(run(*changes, settings={"width": 10}))
    assert len({charge_of_fleet(config, 3)[0].workload.name for config in configs}) == 4


def test_what_travels_are_all_arrays_of_the_model_and_not_those_of_a_workload(run):
    config = run()
    sent = 4 * (100 * 10 + 10 + 4 * 10) + 8  # the norm's running statistics, and their count
    pool = Pool.of_fleet(config, load_fleet(config.fleet))
    assert pool.offers().transfer_s.tolist() == [transfer_s(sent, 8.0)] * 3
    assert client_of(config).offer().transfer_s == transfer_s(sent, 8.0)
    named = Pool.of_fleet(replace(config, workload="resnet18-train"), load_fleet(config.fleet))
    assert named.offers().transfer_s[0] == transfer_s(
        load_workload("resnet18-train").model_bytes, 8.0
    )


def test_a_named_workload_wins_and_nothing_is_counted(run):
    config = run(workload="resnet18-train")
    charge, task = charge_of_fleet(config, 3)
    assert charge.workload is load_workload("resnet18-train") and not task.task.own.counted
    assert str(charge) == "resnet18-train (named)"


def test_tasks_of_ours_are_charged_as_ever(run):
    charge, _ = charge_of_fleet(replace(run(), task="noop"), 3)
    assert charge.workload is load_workload("mobilenetv3-train")
    assert str(charge) == "mobilenetv3-train (calibrated)"


def test_one_workload_costs_each_board_what_its_constants_say(run):
    config = run()
    offers = Pool.of_fleet(config, load_fleet(config.fleet)).offers()
    minibatch_s = offers.maxn_time_s / offers.minibatches  # their product was rounded
    assert minibatch_s[0] == pytest.approx(minibatch_s[1], rel=4e-15)
    assert minibatch_s[1] < minibatch_s[2]
    assert client_of(config).offer().maxn.time_s == pytest.approx(minibatch_s[1], rel=4e-15)


def test_what_is_only_counted_is_less_sure_than_what_was_calibrated(run):
    config = run()
    own, known = client_of(config), client_of(replace(config, workload="mobilenetv3-train"))
    board = own._open_device(0).board
    stds = [one._predictor(own._open_device(0)).predict(board.space.arrays) for one in (own, known)]
    assert np.all(stds[0].time_std > stds[1].time_std)
    assert np.all(stds[0].power_std > stds[1].power_std)


def test_what_cannot_be_counted_is_charged_as_a_small_network_and_the_round_goes_on(run, caplog):
    twice = """
    seen = optimizer.__dict__.setdefault("seen", set())
    if (key := tuple(batch[1].tolist())) in seen:  # as it is in counting alone
        raise RuntimeError("the same samples again")
    seen.add(key)
    optimizer.zero_grad()"""
    config = run(
        ("\n    optimizer.zero_grad()", twice),
        ("[(torch.ones(100), 0)] * SIZES[partition_id]",
         "[(torch.ones(100), i) for i in range(SIZES[partition_id])]"),
        ("batch[1])", "batch[1] % 10)"),
        local_epochs=1,
    )  # fmt: skip
    known = client_of(replace(config, workload="mobilenetv3-train"))
    client = client_of(config)
    offer = client.offer()
    assert offer.charged.endswith("(as mobilenetv3-train: it cannot be counted, real rounds)")
    (line,) = [r.getMessage() for r in caplog.records if "cannot be counted" in r.getMessage()]
    assert "the same samples again" in line and "\n" not in line
    report = client.train(client.task.first_model(), RoundAssignment(1, offer.minibatches), 1)
    assert report.minibatches == offer.minibatches == 3 and report.charged == offer.charged
    modes = client._open_device(0).space.arrays
    unsure, sure = (one._predictor(one._open_device(0)).predict(modes) for one in (client, known))
    assert np.all(unsure.time_std > 5 * sure.time_std)


def test_a_run_says_what_it_was_charged_as_and_from_what(run):
    result = simulate(run(name="own"))
    charge, _ = charge_of_fleet(result.config, 3)
    assert result.charged == charge.told("real rounds")
    assert {report.charged for _, report in result.ledger.reports} == {result.charged}
    summary = (result.folder / "summary.json").read_text()
    assert f'"charged_workload": "{charge.workload.name}"' in summary
    assert '"charged_from": "counted, real rounds"' in summary


def test_what_a_device_has_measured_goes_before_what_was_counted(run, tmp_path):
    config = run()
    costs = CostModels(tmp_path / "state", "twin")
    client = client_of(config, costs=costs)
    counted = client.offer()
    assert counted.charged.endswith("(counted, real rounds)")
    assert list((tmp_path / "state" / "counted").glob("my_task@*-b16.toml"))
    maxn, front = counted.maxn, counted.front
    choices = zip(front.modes, front.time_s, front.energy_j, strict=True)
    facts = {m: Measurement(m, 3 * time_s, j / time_s) for m, time_s, j in (maxn, *choices)}
    put = tmp_path / "state" / "tables" / f"{client.workload.name}.csv"
    put.parent.mkdir()
    MeasurementTable.of(list(facts.values())).write(put)
    found = client.offer()
    assert found.charged == f"{client.workload.name} (measured, real rounds)"
    assert found.maxn.time_s == pytest.approx(3 * maxn.time_s, rel=0.1)


@pytest.mark.parametrize("what", ["of another board", "no table"])
def test_a_table_that_does_not_fit_is_told_in_a_line_and_the_offer_is_made(
    run, tmp_path, what, caplog
):
    client = client_of(run(), costs=CostModels(tmp_path / "state", "twin"))
    board = load_board("orin-nano")
    table = MeasurementTable.of([Measurement(board.space.maximum, 0.1, 10.0)])
    put = tmp_path / "state" / "tables" / f"{client.workload.name}.csv"
    put.parent.mkdir()
    write_output(put, "x,y\n1,2\n") if what == "no table" else table.write(put)
    assert client.offer().charged.endswith("(counted, real rounds)") and client.offer().front
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(put) in line and "\n" not in line
