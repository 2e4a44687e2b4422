from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from powerctl.errors import InvalidInput, UnknownName
from tests.tasks import evaluate, load_task
from wattfed.server.cli import cli
from wattfed.server.engines.simulation import simulate
from wattfed.server.run.federation import NoClients
from wattfed.server.run.history import held_values
from wattfed.server.run.judging import judge_result
from wattfed.server.run.results import read_run
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.studies


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return simulate(RunConfig(out_dir=str(out)))


@pytest.fixture
def config(tmp_path):
    return RunConfig(out_dir=str(tmp_path), rounds=2, local_epochs=1)


def test_digits_are_learned_inside_every_limit(default_run):
    assert max(row.value for row in default_run.rows) >= 0.85
    reports = [report for _, report in default_run.ledger.reports]
    assert not any(r.broke_power_limit or r.broke_budget for r in reports)
    spent = {}
    for report in reports:
        spent[report.client] = spent.get(report.client, 0.0) + report.energy_j
        assert report.time_s + report.transfer_s <= report.deadline_s
    from wattfed.client.fleet import load_fleet

    for profile in load_fleet("twenty-jetsons"):
        assert spent.get(profile.client, 0.0) <= profile.limits.energy_budget_j


def test_predictions_come_true_within_a_few_percent(default_run):
    entries = default_run.ledger.entries
    assert sum(entry.time_error_pct for entry in entries) / len(entries) < 6
    # short rounds end before power has settled, which takes a second or two
    assert sum(entry.energy_error_pct for entry in entries) / len(entries) < 15


def test_results_are_whole_and_the_saved_model_is_the_reported_one(default_run):
    folder = default_run.folder
    with open(folder / "rounds.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["round"]) for row in rows] == list(range(16))
    assert float(rows[-1]["accuracy"]) == default_run.rows[-1].value
    lines = (folder / "reports.jsonl").read_text().splitlines()
    assert len(lines) == len(default_run.ledger.reports)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["charged_workload"] == "mobilenetv3-train"
    assert json.loads((folder / "config.json").read_text())["strategy"] == "pace"
    task = load_task("digits")
    model = task.model()
    model.load_state_dict(torch.load(folder / "model.pt"))
    assert evaluate(model, task.test_samples())["accuracy"] == summary["final_accuracy"]
    checkpoints = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert checkpoints == [f"round-{i:04d}.npz" for i in (14, 15)]


def test_a_run_is_read_back_from_its_folder_as_it_was(default_run):
    again = read_run(default_run.folder)
    assert again.rows == default_run.rows and again.ledger == default_run.ledger
    assert again.config == default_run.config


def test_the_same_seed_gives_the_same_run_and_another_another(config):
    one, two = simulate(config), simulate(replace(config, name="again"))
    assert one.rows == two.rows and one.ledger == two.ledger
    assert simulate(replace(config, seed=1)).rows != one.rows


def test_a_run_ends_with_the_round_that_holds_its_target(config, default_run):
    rows = simulate(RunConfig(out_dir=config.out_dir, target_accuracy=0.8)).rows
    assert rows == default_run.rows[: len(rows)]
    held = [value is not None and value >= 0.8 for value in held_values(rows)]
    assert held.index(True) == len(rows) - 1


@pytest.mark.parametrize("kind", ["budget_j", "budget_s"])
def test_a_run_ends_with_the_round_that_spends_its_budget(config, default_run, kind):
    at = default_run.rows[9]
    budget = at.total_energy_j if kind == "budget_j" else at.clock_s
    ended = simulate(RunConfig(out_dir=config.out_dir, **{kind: budget}))
    assert ended.rows == default_run.rows[:10]
    assert "The budget of" in judge_result(ended).outcome
    again = simulate(replace(ended.config, resume=True))  # nothing is left to be spent
    assert again.rows == ended.rows


@pytest.mark.parametrize("strategy", ["random", "all", "fedcs", "pace"])
def test_every_strategy_runs_within_the_limits(config, strategy):
    result = simulate(replace(config, strategy=strategy))
    assert sum(entry.budget_misses for entry in result.ledger.entries) == 0
    assert all(entry.reported for entry in result.ledger.entries)


@pytest.mark.parametrize("aggregation", ["fedprox", "fedavgm", "fedadam", "fedmedian"])
def test_other_aggregations_carry_the_same_selection(config, aggregation):
    plain = simulate(config)
    other = simulate(replace(config, aggregation=aggregation))
    assert other.ledger.entries[0].clients == plain.ledger.entries[0].clients
    assert other.rows[-1].metrics["loss"] != plain.rows[-1].metrics["loss"]


def test_rounds_go_on_when_budgets_run_out(tmp_path):
    fleet = tmp_path / "poor.toml"
    fleet.write_text(
        'ideal = true\n[[group]]\nboard = "orin-nano"\ncount = 3\n'
        "energy_budget_j = [225, 5000, 2]\n"
    )
    result = simulate(
        RunConfig(fleet=str(fleet), out_dir=str(tmp_path), strategy="all", rounds=4, local_epochs=1)
    )
    clients = [entry.clients for entry in result.ledger.entries]
    assert clients[0] == (0, 1) and clients[-1] == (1,)
    assert sum(r.energy_j for _, r in result.ledger.reports if r.client == 0) <= 225


def test_a_fleet_that_cannot_train_is_said_at_the_end_and_saved(tmp_path):
    fleet = tmp_path / "weak.toml"
    fleet.write_text('[[group]]\nboard = "orin-agx"\ncount = 2\npower_w = 3\n')
    with pytest.raises(NoClients, match="no client took part"):
        simulate(RunConfig(fleet=str(fleet), out_dir=str(tmp_path), rounds=1, name="weak"))
    assert (tmp_path / "weak" / "summary.json").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"strategy": "best"}, UnknownName, "strategy 'best'"),
        ({"task": "mnist"}, UnknownName, "task 'mnist'"),
        ({"aggregation": "sum"}, UnknownName, "aggregation 'sum'"),
        ({"fleet": "none"}, UnknownName, "fleet 'none'"),
        ({"workload": "gpt"}, UnknownName, "workload 'gpt'"),
        ({"task": "cifar10"}, InvalidInput, "data-dir"),
        ({"out_dir": "/proc/nothing"}, InvalidInput, "cannot write results"),
    ],
)
def test_wrong_input_is_named_before_anything_runs(config, changes, error, message):
    with pytest.raises(error, match=message):
        simulate(replace(config, **changes))


@pytest.mark.parametrize("command", [["simulate"], ["simulate", "--against", "random:maxn"]])
def test_a_configuration_is_checked_once_before_the_first_run(command, tmp_path, monkeypatch):
    from wattfed.server.engines import simulation
    from wattfed.server.run import federation

    seen = []

    def check(config):
        assert not list(tmp_path.iterdir())
        seen.append(config.run_name)
        federation.check(config)

    monkeypatch.setattr(simulation, "check", check)
    options = ["--out-dir", str(tmp_path), "--rounds", "1", "--task", "noop", "--json"]
    done = CliRunner().invoke(cli, [*command, *options])
    assert done.exit_code == 0, done.output
    assert len(seen) == len(set(seen)) == 1 + command.count("--against")
