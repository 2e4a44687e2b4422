"""A user's own task on the command line: counted, and run where something is measured."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

from powerctl.cli import cli
from powerctl.workload import load_workload
from tests.powerctl.task.conftest import TASKS

OWN = ("--task", str(TASKS / "quickstart.py"))
TWIN = ("--device", "twin:orin-nano")
NET = """
import torch
calls = []
def make_model(): return torch.nn.Linear(4, 2)
def load_data(batch_size): return [torch.ones(batch_size, 4)] * 30
def test(): ...
def train(net, trainloader, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for x in trainloader:
        calls.append(1)
        loss = {loss}
        loss.backward()
        optimizer.step()
"""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a task of one layer with some loss, in the directory where they are."""
    monkeypatch.chdir(tmp_path)

    def write(name, loss):
        (tmp_path / name).write_text(NET.format(loss=loss))
        return ("--task", name)

    return write


@pytest.fixture
def said():
    """Run a command line that must succeed; gives its standard output and error."""

    def run(*arguments):
        done = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout, done.stderr

    return run


def test_a_task_is_explained_without_naming_a_model(as_json, powerctl, tmp_path):
    explained = as_json("explain", *OWN, "--board", "orin-nano", "--batch", 8)
    assert (explained["kind"], explained["batch_size"]) == ("train", 8)
    assert {layer["kind"] for layer in explained["layers"]} == {"Net", "Conv2d", "Linear", "SGD"}
    assert explained["unknown_operators"] == []
    text = powerctl("explain", *OWN, "--batch", 8, "--out", tmp_path / "own.toml")
    assert "quickstart@" in text and "powerctl tune --task" in text
    job = load_workload(str(tmp_path / "own.toml"))
    assert (job.batch_size, job.parameters, job.counted_share) == (8, 1562, 1.0)


def test_inference_is_what_its_test_does(as_json):
    train, infer = (as_json("explain", *OWN, "--kind", kind)["flop"] for kind in ("train", "infer"))
    assert 0 < infer < train / 2


def test_a_task_is_tuned_and_predicted_from_its_counts(as_json):
    tuned = as_json("tune", *OWN, "--batch", "8,16", "--board", "orin-nano")
    assert [choice["batch_size"] for choice in tuned["choices"]] == [8, 16]
    assert "quickstart@" in tuned["model"]
    predicted = as_json("predict", *OWN, "--mode", "maxn")
    assert "estimated from the counts of quickstart@" in predicted["origin"]
    named = as_json("predict", *OWN, "--mode", "maxn", "--workload", "lstm-train")
    assert "for lstm-train" in named["origin"]


def test_measuring_on_a_twin_charges_the_counted_workload_and_says_so(said, tmp_path, written):
    own = written("measured.py", "net(x).sum()")
    log = tmp_path / "log.jsonl"
    modes = ("--mode", "6c/1510/624/2133")
    out, err = said("profile", *TWIN, *own, "--batch", 8, *modes, "--out", log)
    assert "measured@" in out and "-b8 on twin:orin-nano" in out
    assert "which was not measured" in err
    header = json.loads(log.read_text().splitlines()[0])
    assert header["workload"].startswith("measured@") and header["kind"] == "train"


def test_a_task_alone_makes_the_problem_of_training(said, written):
    own = written("solved.py", "net(x).sum()")
    out, _ = said("solve", *TWIN, *own, "--power", 30, "--cap", 2, "--json")
    found = json.loads(out)
    assert "solved@" in found["source"] and len(found["measured"]) == 2


def test_what_fails_in_counting_but_not_in_training_is_measured_all_the_same(
    said, written, tmp_path
):
    own = written("moody.py", "net(x).sum() if len(calls) > 2 else net(x[:, :1])")
    log = tmp_path / "log.jsonl"
    modes = ("--mode", "6c/1510/624/2133")
    _, err = said("profile", *TWIN, *own, *modes, "--out", log)
    assert "moody.py cannot be counted" in err and "charged as a small network" in err
    assert len(log.read_text().splitlines()) == 2


def test_an_operator_without_a_formula_is_named_and_makes_the_rest_less_sure(said, written):
    with torch.library._scoped_library("powerctl_tests", "FRAGMENT") as library:
        library.define("odd(Tensor x) -> Tensor")
        library.impl("odd", lambda x: 2 * x, "CompositeExplicitAutograd")
        own = written("odd.py", "net(x).sum() + torch.ops.powerctl_tests.odd(x).sum()")
        out, _ = said("explain", *own)
        assert "not known: powerctl_tests::odd, 1 calls" in out
        _, err = said("tune", *own)
        assert "of operators with" in err and "less sure" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain",), "give MODEL, or a task of your own"),
        (("tune", *OWN, "--optimiser", "adam"), "a task has its own"),
        (("explain", "resnet18", "--set", "x=1"), "--set is for a task of your own"),
        (("explain", "--task", "nothing.py"), "no such file"),
        (("tune", "resnet18", *OWN), "give --device"),
    ],
)
def test_what_makes_no_sense_together_is_said(failing, arguments, message):
    assert message in failing(*arguments)
