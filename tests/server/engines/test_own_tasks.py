"""Tasks of a user's own in the virtual engine: the same bits in every way that they can be run."""

from __future__ import annotations

import json
import logging
import textwrap
from dataclasses import replace
from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.in_process_grid import InProcessGrid
from benchmarks.own_task import TASKS, usual_settings
from powerctl.errors import InvalidInput, TaskFailed
from powerctl.task.loading import keys_of, load_task
from tests.waiting import TIMEOUT_S
from wattfed.client.app import app as client_app
from wattfed.server.engines.flower import run_federation
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.federation import NoClients
from wattfed.strategies.protocol import EvaluationReport
from wattfed.strategies.round.ledger import Ledger
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.studies

N = 3
TASK = """
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    class Noisy(Dataset):
        def __init__(self, client, n=20):
            self.x = torch.randn(n, 3, generator=torch.Generator().manual_seed(client))
            self.rng = np.random.default_rng()  # of its own, for augmentation

        def __len__(self):
            return len(self.x)

        def __getitem__(self, i):
            x = self.x[i] + float(self.rng.normal(0, 0.01)) + float(np.random.normal(0, 0.01))
            return x, int(self.x[i].sum() > 0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2))
            self.layers[0].weight.data += torch.from_numpy(np.random.normal(size=(8, 3)))
            self.seen = 0  # in no state: of one client, it must not be another's

        def forward(self, x):
            self.seen += self.training
            return self.layers(x) * (1 + 1e-3 * self.seen)

    def load_data(partition_id, batch_size):
        data, kept_out = torch.utils.data.random_split(Noisy(partition_id), [16, 4])
        return DataLoader(data, batch_size, shuffle=True), DataLoader(kept_out, 2)

    def train(net, trainloader, epochs, lr, partition_id):
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        for _ in range(epochs):
            for x, y in trainloader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                optimizer.step()

    @torch.no_grad()
    def test(net, testloader):
        net.eval()  # and it is left so, for a loop that never calls train()
        hits = sum(int((net(x).argmax(1) == y).sum()) for x, y in testloader)
        return {"accuracy": hits / 4}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Three boards, all of which evaluate; a run of two rounds in the current folder."""
    monkeypatch.chdir(tmp_path)
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(f'[[group]]\nboard = "orin-nano"\ncount = {N}\n')
    return RunConfig(
        fleet=str(fleet), rounds=2, local_epochs=1, per_round=2, strategy="random",
        evaluate_share=0.6, learning_rate=0.1, workers=1, out_dir=str(tmp_path / "runs"),
        name="one",
    )  # fmt: skip


@pytest.fixture
def own(config, tmp_path, monkeypatch):
    """A run of the task above, some of its text replaced by other, in a folder of its own."""
    folders = (tmp_path / str(number) for number in count())

    def make(*changes, **options):
        text = textwrap.dedent(TASK)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        folder = next(folders)
        folder.mkdir()
        monkeypatch.chdir(folder)
        (folder / "my_task.py").write_text(text)
        return config.changed(task="my_task.py", **options)

    return make


@pytest.fixture
def logged(caplog):
    """What the run says in Flower's log, which does not propagate."""
    logger = logging.getLogger("flwr")
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


def by_message(config):
    grid = InProcessGrid(client_app, N, config.to_flower())
    return run_federation(grid, replace(config, name="messages", min_nodes=N))


def bits(result):
    """All that a run writes but for how it was configured."""
    model = torch.load(result.folder / "model.pt")
    files = [(result.folder / name).read_bytes() for name in ("rounds.csv", "reports.jsonl")]
    return [*files, *(tensor.float().numpy().tobytes() for tensor in model.values())]


@pytest.mark.parametrize("path", sorted(TASKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_task_of_the_tests_learns_the_same_in_both_engines(config, tmp_path, path):
    (tmp_path / "files").mkdir()
    asked = keys_of(load_task(str(path))) - {"learning-rate"}
    settings = {k: v for k, v in usual_settings(tmp_path / "files").items() if k in asked}
    config = config.changed(task=str(path), settings=settings)
    virtual = simulate(config)
    assert [entry.reported for entry in virtual.ledger.entries] == [2, 2]
    assert not virtual.rows[0].metrics and virtual.target.name in virtual.rows[1].metrics
    assert bits(by_message(config)) == bits(virtual)


def test_dropout_augmentation_and_what_a_model_remembers_do_not_depend_on_the_processes(own):
    one = simulate(own(rounds=3))
    assert bits(simulate(own(rounds=3, workers=2, name="two"))) == bits(one)
    assert bits(by_message(own(rounds=3))) == bits(one)


def test_a_data_loader_with_workers_runs_in_several_processes(config, tmp_path):
    (tmp_path / "files").mkdir()
    settings = {"dataset-path": usual_settings(tmp_path / "files")["dataset-path"]}
    config = config.changed(task=str(TASKS / "files.py"), settings=settings, workers=2, rounds=1)
    assert [entry.reported for entry in simulate(config).ledger.entries] == [2]


def test_a_run_that_was_broken_off_goes_on_with_its_evaluations(own):
    def stop(row):
        if row.round == 2:
            raise KeyboardInterrupt

    whole = simulate(own(rounds=4))
    config = own(rounds=4, name="broken", resume=True)
    with pytest.raises(KeyboardInterrupt):
        simulate(config, stop)
    assert bits(simulate(config)) == bits(whole)
    assert whole.ledger.evaluation_j > 0


def test_evaluations_are_charged_to_the_clock_the_ledger_and_the_clients(own):
    result, without = simulate(own()), simulate(own(evaluate_every=9, name="without"))
    last, ledger = result.rows[-1], result.ledger
    assert ledger.evaluation_s > 0 and ledger.evaluation_j > 0
    assert last.clock_s > sum(entry.round_time_s for entry in ledger.entries)
    assert last.total_energy_j > sum(entry.energy_j for entry in ledger.entries)
    assert without.ledger.evaluation_s == 0 and not without.rows[-1].metrics


@given(st.floats(1, 60))
def test_no_allowance_is_overdrawn_by_an_evaluation(tmp_path_factory, budget_j):
    folder = tmp_path_factory.mktemp("budget")
    (folder / "fleet.toml").write_text(
        f'[[group]]\nboard = "orin-nano"\ncount = 2\nenergy_budget_j = {budget_j}\n'
    )
    (folder / "my_task.py").write_text(textwrap.dedent(TASK))
    spent = []
    try:
        result = simulate(
            task=str(folder / "my_task.py"), fleet=str(folder / "fleet.toml"), rounds=3,
            local_epochs=1, per_round=2, evaluate_share=1.0, strategy="random",
            out_dir=str(folder), checkpoint_every=0,
            workload="mobilenetv3-train",  # whose minibatch takes more than a change of mode
        )  # fmt: skip
    except NoClients as error:
        reasons = (" J left", "a minibatch needs", "not one minibatch was done: energy")
        assert any(reason in str(error) for reason in reasons)
        return
    ledger = result.ledger
    trained_j = sum(report.energy_j for _, report in ledger.reports)
    spent = trained_j + ledger.evaluation_j
    assert spent <= 2 * budget_j


def test_what_an_evaluation_took_that_was_not_finished_is_entered_and_its_metrics_are_not():
    ledger = Ledger()
    ledger.evaluated([EvaluationReport(0, 4, 2.0, 9.0, 1.0, decline="energy")])
    assert (ledger.evaluation_s, ledger.evaluation_j) == (3.0, 9.0)


def test_a_run_ends_once_it_holds_a_target_that_clients_tell(own):
    result = simulate(own(("hits / 4", "0.75"), rounds=5, target="accuracy=0.7"))
    assert result.rows[-1].round == 3  # the mean of three evaluations


def test_metrics_of_both_places_have_names_of_their_own(own):
    central = "def central_data():\n    return DataLoader(Noisy(99, 4), 2)\n\n@torch.no_grad()"
    result = simulate(own(("@torch.no_grad()", central), evaluate="both"))
    assert set(result.rows[-1].metrics) == {"accuracy", "clients' accuracy"}
    with pytest.raises(InvalidInput, match=r"evaluate is server: my_task.py has no central_data"):
        simulate(own(evaluate="server"))


def test_data_is_loaded_for_those_who_are_selected_alone_and_once(own):
    config = own(
        ("def load_data", "loaded = []\n\ndef num_examples():\n    return 16\n\ndef load_data"),
        ("    data, kept_out", "    loaded.append(partition_id)\n    data, kept_out"),
        rounds=4, per_round=1, evaluate_share=0.1,
        workload="mobilenetv3-train",  # nothing is counted
    )  # fmt: skip
    module = load_task("my_task.py").own
    begun = []
    result = simulate(config, lambda row: begun.append(list(module.loaded)))
    asked = {client for entry in result.ledger.entries for client in entry.clients}
    assert begun[0] == [] and len(module.loaded) == len(set(module.loaded))
    assert asked <= set(module.loaded)


def test_settings_reach_the_functions_and_keys_that_nobody_knows_are_refused(own):
    takes = ("def load_data(partition_id, batch_size):", "def load_data(partition_id, batch_size, "
             "kept_words):\n    assert kept_words == 'few'")  # fmt: skip
    simulate(own(takes, settings={"kept-words": "few"}))
    with pytest.raises(TaskFailed, match="my_task.py: load_data needs 'kept_words', which"):
        simulate(own(takes, name="without"))
    with pytest.raises(ValueError, match="unknown run-config key 'kept-wrds': did you mean"):
        simulate(own(takes, settings={"kept-wrds": "few"}))
    with pytest.raises(InvalidInput, match="seed is a key of the run"):
        own(settings={"seed": 3})
    with pytest.raises(InvalidInput, match=r"--set layers is \[8, 4\]: a run holds text, numbers"):
        own(settings={"layers": [8, 4]})


BAD = {
    "raises in round 2 at one client": (
        [("optimizer = torch", "calls[partition_id] += 1\n    if calls[1] == 2 and partition_id:\n"
          "        raise RuntimeError('out of\\n memory')\n    optimizer = torch"),
         ("def train(", "calls = [0] * 3\ndef train(")],
        "client 1: my_task.py: train raised RuntimeError: out of memory",
    ),
    "has a loss of NaN": (
        [("nn.functional.cross_entropy(net(x), y)", "(net(x).sum() * float('nan'))")],
        "my_task.py: train: the loss of minibatch 1 is nan, and the parameter",
    ),
    "leaves the loader alone": (
        [("for x, y in trainloader", "for x, y in [(torch.zeros(1, 3), torch.zeros(1).long())]")],
        "my_task.py: train ended without a minibatch: expected a loader that gives some",
    ),
    "never ends": (
        [("optimizer.step()", "optimizer.step()\n            while partition_id: pass")],
        "my_task.py: train did not ask for its next minibatch within 0.5 s: it was given up",
    ),
    "exits": (
        [("optimizer = torch", "raise SystemExit(3)\n    optimizer = torch")],
        "my_task.py: train raised SystemExit: 3",
    ),
    "tests nothing": (
        [('return {"accuracy": hits / 4}', "pass")],
        "my_task.py: test returned None as 'loss': expected numbers by name, the pair",
    ),
    "tells a list": (
        [('"accuracy": hits / 4', '"accuracy": [1, 2]')],
        "my_task.py: test returned [1, 2] as 'accuracy': expected numbers by name",
    ),
    "has a metric of two lines": (
        [('"accuracy"', '"a\\nb"')],
        "my_task.py: test returned a metric called 'a\\nb': expected one line of text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_client_whose_task_fails_is_told_in_one_line_and_keeps_its_account(own, logged, what):
    changes, expected = BAD[what]
    patience_s = 0.5 if what == "never ends" else TIMEOUT_S
    config = own(*changes, per_round=3, evaluate_share=1.0, timeout_s=patience_s)
    try:
        result = simulate(config)
    except NoClients as error:
        assert "trainings failed (see the log)" in str(error)
    else:
        assert all(entry.round_time_s > 0 for entry in result.ledger.entries)
        failed = sum(entry.failed for entry in result.ledger.entries)
        told = [report.client for _, report in result.ledger.reports]
        assert len(told) + failed == 6
    first = next(line for line in logged() if "my_task.py" in line)
    assert expected in first and "\n" not in first


def test_clients_without_samples_decline_and_one_sample_is_enough(own):
    few = ("Noisy(partition_id), [16, 4]", "Noisy(partition_id, n), [n - n // 2, n // 2]")
    sizes = ("    data, kept", "    n = partition_id  # none, one, two\n    data, kept")
    result = simulate(own(few, sizes, ("shuffle=True", "shuffle=bool(n)"), per_round=3))
    assert [entry.clients for entry in result.ledger.entries] == [(1, 2)] * 2
    nobody = ("    data, kept", "    n = 0\n    data, kept")
    with pytest.raises(NoClients, match="no client took part in any round: it has no examples"):
        simulate(own(few, nobody, ("shuffle=True", "shuffle=False"), name="nobody"))


def test_metrics_of_any_name_and_number_come_through(own):
    told = (
        '{"accuracy": hits / 4}',
        '{"round": 1, "a,b": 2.5, "num-examples": 7, "accuracy": np.float32(0.5), '
        '"nan": float("nan"), "t": torch.tensor(3.0)}',
    )
    virtual, messages = simulate(own(told)), by_message(own(told))
    metrics = dict(virtual.rows[-1].metrics)
    assert metrics.pop("nan") != 0  # all of it is
    assert metrics == {"round": 1, "a,b": 2.5, "num-examples": 7, "accuracy": 0.5, "t": 3}
    assert bits(virtual) == bits(messages)
    summary = json.loads((virtual.folder / "summary.json").read_text())
    assert summary["metrics"]["nan"] is None and summary["final_accuracy"] == 0.5


def test_a_target_that_test_does_not_return_is_named_with_its_file(own):
    wants = ("@torch.no_grad()", 'target = ("mAP", "max")\n\n@torch.no_grad()')
    with pytest.raises(TaskFailed, match="my_task.py: test returned accuracy, without the target"):
        simulate(own(wants))
