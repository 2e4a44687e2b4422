"""The wattfed command as people and scripts call it."""

from __future__ import annotations

import json
import sys

import pytest

from tests import warm
from wattfed.server.cli import main
from wattfed.server.engines.simulation import simulate
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes


def wattfed(*arguments, cwd):
    code = "import sys; from wattfed.server.cli import main; sys.argv[0] = 'wattfed'; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return warm.run(command, cwd=cwd)


def test_a_run_shows_its_rounds_compares_and_says_where_its_results_are(tmp_path):
    done = wattfed(
        "simulate", "--rounds", 6, "--against", "random:maxn", "--name", "x", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nround ") == 12
    assert "charged as mobilenetv3-train" in done.stdout
    assert "times less energy than random at maxn" in done.stdout
    folder = tmp_path / "runs" / "x"
    assert done.stdout.splitlines()[-1] == f"results: {folder}"
    assert (folder / "accuracy.png").stat().st_size > 10_000
    assert (folder / "against-random-maxn" / "summary.json").exists()


def test_where_nothing_was_learned_there_is_nothing_to_compare(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = call(main, "simulate", "--task", "noop", "--rounds", 1, "--against", "random:maxn")
    assert done.returncode == 0
    assert "pace and random at maxn cannot be compared" in done.stdout


FEW = """
[[group]]
board = "orin-agx"
count = 2
power_w = 30
[[group]]
board = "orin-nano"
count = 3
power_w = [10, 10, 1]
"""


def test_a_dry_run_tells_boards_modes_charges_and_warnings_and_trains_nothing(
    call, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.toml").write_text(FEW)
    asked = ["--fleet", "few.toml", "--dry-run"]
    done = call(main, "simulate", *asked, "--against", "random:maxn", "--name", "x")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "5 clients of few.toml learn digits, and are charged mobilenetv3-train" in lines[0]
    kinds = [line.split() for line in lines[2:5]]
    assert [kind[:3] for kind in kinds] == [
        ["0-1", "orin-agx", "30"],
        ["2-3", "orin-nano", "10"],
        ["4", "orin-nano", "1"],
    ]
    assert all(mode.count("/") == 3 for mode in (kinds[0][-1], kinds[1][-1]))
    assert "power limit: no mode surely stays within 1 W" in lines[4]
    assert "warning: per-round is 6, but only 4 can take part" in lines
    assert lines[-1] == f"results would go to: {tmp_path / 'runs' / 'x'}"
    compared = call(main, "compare", *asked, "--seeds", 2, "--strategies", "random,pace")
    assert compared.stdout.splitlines()[-1].startswith("6 runs would go to: ")
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_takes_the_runs_first_round_as_it_will_be(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few.toml").write_text(FEW)
    asked = ["--fleet", "few.toml", "--strategy", "all", "--power", "maxn"]
    told = call(main, "simulate", *asked, "--dry-run").stdout.splitlines()
    minibatches, maxn_s = map(float, told[2].split()[3:5])
    result = simulate(RunConfig(fleet="few.toml", strategy="all", power="maxn", rounds=1))
    report = next(r for _, r in result.ledger.reports if r.client == 0)
    assert report.minibatches == minibatches
    warm_s = report.time_s - report.warm_up_s
    assert warm_s == pytest.approx(maxn_s, rel=0.2)  # of a unit that is not the usual one


def test_scripts_get_json_only(tmp_path):
    done = wattfed("simulate", "--rounds", 1, "--json", cwd=tmp_path)
    (summary,) = json.loads(done.stdout)
    assert summary["rounds"] == 1 and summary["power_violations"] == 0
    assert not done.stderr


def test_what_there_is_to_choose_from_is_listed(call):
    listed = call(main, "strategies").stdout
    for name in ("pace", "fedcs", "fedprox", "twenty-jetsons", "cifar10", "lstm-train"):
        assert name in listed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "best"], "unknown strategy 'best'"),
        (["--task", "mnist"], "unknown task 'mnist'"),
        (["--fleet", "nowhere.toml"], "nowhere.toml: no such file"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--rounds", "many"], "not a valid integer"),
        (["--power", "turbo"], "unknown power policy 'turbo'"),
        (["--against", "best"], "unknown strategy 'best'"),
        (["--workload", "resnet50-infer"], "no training workload"),
        (["--task", "cifar10", "--data-dir", "nowhere"], "cifar-10-python.tar.gz"),
    ],
)
def test_wrong_input_is_one_clear_line_and_exit_code_2(
    call, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    done = call(main, "simulate", *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[group]\n", "not readable as TOML"),
        ("", "no clients"),
        (
            '[[group]]\nboard = "orin-agx"\nenergy_budget_j = -10\n',
            "must be positive and at most 1e+15, got -10",
        ),
    ],
)
def test_a_bad_fleet_is_named(call, monkeypatch, tmp_path, text, message):
    monkeypatch.chdir(tmp_path)
    fleet = tmp_path / "fleet.toml"
    fleet.write_text(text)
    done = call(main, "simulate", "--fleet", fleet)
    assert done.returncode == 2 and message in done.stderr and "fleet.toml" in done.stderr


def test_a_comparison_is_one_command_and_goes_on_where_it_stopped(tmp_path):
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[group]]\nboard = "orin-agx"\ncount = 2\n')
    asked = ["compare", "--fleet", fleet, "--rounds", 1, "--local-epochs", 1, "--per-round", 1]
    asked += ["--strategies", "random,pace", "--power", "maxn", "--out", "c", "--jobs", 1]
    first = wattfed(*asked, "--seeds", 1, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"report: {tmp_path / 'c' / 'report.html'}"
    assert "beside random at maxn" in first.stdout and "pace, 1 a round, seed 0" in first.stderr
    more = wattfed(*asked, "--seeds", 2, "--json", cwd=tmp_path)
    assert [(row["strategy"], row["seed"]) for row in json.loads(more.stdout)] == [
        ("random", 0),
        ("pace", 0),
        ("random", 1),
        ("pace", 1),
    ]
    assert "4 runs, 2 of them finished earlier" in more.stderr and "seed 0:" not in more.stderr
    page = (tmp_path / "c" / "report.html").read_bytes()
    assert wattfed("report", "c", cwd=tmp_path).returncode == 0
    assert (tmp_path / "c" / "report.html").read_bytes() == page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--strategies", "pace,best"], "unknown strategy 'best'"),
        (["compare", "--power", "turbo"], "unknown power policy 'turbo'"),
        (["compare", "--strategies", ""], "nothing to compare: no strategies"),
        (["compare", "--per-round", "few"], "--per-round: cannot read 'few'"),
        (["report", "nowhere"], "nowhere: neither a comparison nor a run"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(call, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = call(main, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


OWN_TASK = """
import torch
from torch import nn

def make_model(width):
    return nn.Linear(2, width)

def load_data(partition_id, batch_size):
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(partition_id))
    return list(zip(x.split(batch_size), (x[:, 0] > 0).long().split(batch_size)))

def train_step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    optimizer.step()
    return loss

def test(net, testloader):
    return {"loss": sum(float(nn.functional.cross_entropy(net(x), y)) for x, y in testloader)}
"""
SMALL = ("--rounds", 1, "--local-epochs", 1, "--per-round", 2, "--workers", 1)


@pytest.fixture
def own_task(tmp_path):
    """A folder with a task of one's own, tasks/mine.py."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mine.py").write_text(OWN_TASK)
    return tmp_path


@pytest.mark.parametrize("name", ["tasks/mine.py", "tasks.mine"])
def test_a_task_of_ones_own_is_simulated(own_task, name):
    done = wattfed("simulate", "--task", name, "--set", "width=2", *SMALL, cwd=own_task)
    assert done.returncode == 0 and "round   1  loss " in done.stderr, done.stderr


def test_a_task_of_ones_own_is_compared_in_processes(own_task, call, monkeypatch):
    monkeypatch.chdir(own_task)
    monkeypatch.syspath_prepend(str(own_task))
    asked = ("compare", "--task", "tasks.mine", "--fleet", "twenty-jetsons", *SMALL)
    asked += ("--strategies", "random", "--power", "slack", "--seeds", 2, "--jobs", 2)
    done = call(main, *asked, "--set", "width=2", "--target", "loss=0.1")
    assert done.returncode == 0 and "reached loss 0.1" in done.stdout, done.stderr
    report = (own_task / "runs" / "comparison" / "report.html").read_text()
    assert "--set width=2" in report
    done = call(main, *asked)
    assert done.returncode == 2 and done.stderr.strip().endswith("the configuration nothing")
