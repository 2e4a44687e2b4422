"""A task of the user's own in the agent: loaded if it was added, and is the server's, unchanged."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from flwr.app import ArrayRecord

from powerctl.errors import InvalidInput
from powerctl.task.loading import load_task as load_own
from tests import warm
from tests.client.agent.conftest import ROOT, request
from tests.client.agent.test_rounds import NODE, answer, content_of, message, rounds
from tests.waiting import TIMEOUT_S
from wattfed.client.agent import rpc
from wattfed.client.agent.cli import cli
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.fleet import profile_from_node_config
from wattfed.client.tasks.federated import federated
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.protocol import (
    CONFIG,
    METRICS,
    TASK,
    EvaluationReport,
    RoundAssignment,
    RoundOffer,
    RoundReport,
    decode_record,
    encode_record,
)
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

__all__ = ["rounds"]  # the fixture

MINE = (ROOT / "examples" / "quickstart" / "my_task.py").read_text()
SLOW = MINE.replace("outputs = ", "__import__('time').sleep(0.05)\n            outputs = ")
RUN = RunConfig(task="my_task", settings=(("model-name", "small"),), local_epochs=2, seed=3)


def ask(stub, kind, code_hash, configured=RUN, node=NODE, model=None, server_round=1):
    """The reply to a message of a server whose task has some hash."""
    config, more = {TASK: code_hash}, {}
    if kind == "train":
        config |= encode_record(RoundAssignment(0, 12, TIMEOUT_S, power="fastest"))
    if model is not None:
        more["arrays"] = ArrayRecord(model.state_dict())
    parts = message(kind, server_round, node, configured=configured, config=config, **more)
    return answer(stub, parts)


def examples(stub, code_hash, **more):
    return decode_record(
        RoundOffer, ask(stub, "query", code_hash, **more).config_records[CONFIG]
    ).examples


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "board" / "my_task.py"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


@pytest.fixture
def data(tmp_path) -> Path:
    """A node's own samples: 400, of which 100 are there to validate."""
    path = tmp_path / "camera.pt"
    torch.save((torch.rand(400, 4), torch.zeros(400, dtype=torch.int64)), path)
    return path


@pytest.fixture
def tasks(settings) -> OwnTasks:
    return OwnTasks(Path(settings.state_dir))


@pytest.fixture
def server(tmp_path):
    """The server's hash of a text that is there the task's file, under another path."""

    def hash_there(text: str) -> str:
        path = tmp_path / f"server{len(list(tmp_path.iterdir()))}" / "my_task.py"
        path.parent.mkdir()
        path.write_text(text)
        return load_own(str(path)).code_hash

    return hash_there


def test_what_was_added_is_trained_as_in_a_process_of_its_own(rounds, tasks, file, server):
    code_hash = server(MINE)
    tasks.add(str(file))
    config = replace(RUN, task=str(file))
    own, learned = federated(config, 16).model(), federated(config, 16)
    reply = ask(rounds, "train", code_hash, model=own)
    report = decode_record(RoundReport, reply.config_records[CONFIG])
    assert report.minibatches == 12 and report.energy_j > 0
    profile = profile_from_node_config({**NODE, "device": "twin:orin-agx"})
    client = LocalClient(config, profile, 5, ClientState())
    client.train(own, RoundAssignment(0, 12, TIMEOUT_S, power="fastest"), server_round=1)
    arrays = reply.array_records["arrays"].to_torch_state_dict()
    assert learned.name == "my_task" and arrays.keys() == own.state_dict().keys()
    for name, tensor in own.state_dict().items():
        np.testing.assert_allclose(arrays[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_nodes_own_keys_reach_the_task(rounds, tasks, file, server, data):
    tasks.add(str(file))
    code_hash = server(MINE)
    assert examples(rounds, code_hash, node={**NODE, "dataset-path": str(data)}) == 300
    assert examples(rounds, code_hash) == 24


def test_what_is_unknown_or_other_than_the_servers_is_refused_in_a_line(
    rounds, tasks, file, server
):
    theirs = server(f"{MINE}\n# other\n")
    with pytest.raises(grpc.RpcError) as error:
        examples(rounds, theirs)
    assert error.value.details() == (
        f"this agent knows no task my_task of hash {theirs[:12]}, but none: bring the server's "
        "file to this board, and there wattfed-agent task add my_task"
    )
    own = tasks.add(str(file))
    for code_hash in (theirs, ""):
        with pytest.raises(grpc.RpcError, match=f"but my_task of hash {own.shown_hash}: bring"):
            examples(rounds, code_hash)
    with pytest.raises(grpc.RpcError, match="knows no task my_task:DataLoader"):
        examples(rounds, own.code_hash, configured=replace(RUN, task="my_task:DataLoader"))


def test_a_changed_file_is_not_run_until_it_is_added_again(rounds, tasks, file, server, tmp_path):
    own = tasks.add(str(file))
    changed = f"open({str(tmp_path / 'ran')!r}, 'w')\n{MINE}"
    file.write_text(changed)
    with pytest.raises(
        grpc.RpcError, match=f"has changed in {file.parent} .*: wattfed-agent task add {file}"
    ):
        examples(rounds, own.code_hash)
    assert not (tmp_path / "ran").exists()
    file.write_text(MINE)
    assert examples(rounds, own.code_hash) == 24
    file.write_text(changed)
    with pytest.raises(grpc.RpcError, match="has changed"):  # also of one that is loaded
        examples(rounds, own.code_hash)
    # in the process of the command, as a person adds it
    add = [sys.executable, "-m", "wattfed.client.agent.cli", "task", "add", str(file)]
    done = warm.run([*add, "--state-dir", tmp_path], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(tasks.listed()) == 1
    with pytest.raises(grpc.RpcError, match="loaded another my_task.py .* restart the agent"):
        examples(rounds, server(changed))
    tasks.remove("my_task")
    with pytest.raises(grpc.RpcError, match="this agent knows no task my_task"):
        examples(rounds, own.code_hash)


def test_a_package_is_added_by_its_name_with_all_that_it_imports(
    rounds, tasks, tmp_path, monkeypatch
):
    package = tmp_path / "apps" / "quick_example"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "net.py").write_text("import torch\n\nNet = torch.nn.Linear\n")
    (package / "task.py").write_text(f"from quick_example.net import Net as _\n{MINE}")
    there = shutil.copytree(tmp_path / "apps", tmp_path / "server-apps")
    code = (
        "from powerctl.task.loading import load_task as l; print(l('quick_example.task').code_hash)"
    )
    found = warm.run([sys.executable, "-c", code], cwd=there, env={"PYTHONPATH": str(ROOT)})
    told = found.stdout.strip()
    monkeypatch.chdir(tmp_path / "apps")
    own = tasks.add("quick_example.task")
    assert own.code_hash == told and own.folder == str(tmp_path / "apps")
    monkeypatch.chdir(ROOT)
    config = replace(RUN, task="quick_example.task")
    assert examples(rounds, told, configured=config) == 24
    (package / "net.py").write_text("raise SystemExit\n")
    with pytest.raises(grpc.RpcError, match="task quick_example.task has changed"):
        examples(rounds, told, configured=config)


def test_two_tasks_whose_imports_share_a_name_are_not_mixed_up(tasks, tmp_path):
    found = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "shared_name.py").write_text(f"N = {number}\n")
        (folder / "my_task.py").write_text(f"from shared_name import N\n{MINE}")
        sys.modules.pop("shared_name", None)  # as in the processes of two commands
        sys.path[:] = [path for path in sys.path if not path.startswith(str(tmp_path))]
        found.append(tasks.add(str(folder / "my_task.py")))
    assert tasks.source("my_task", found[0].code_hash) == str(tmp_path / "1" / "my_task.py")
    with pytest.raises(InvalidInput, match="has loaded another shared_name.py than .*/2/"):
        tasks.source("my_task", found[1].code_hash)


def test_samples_of_ones_own_are_known_by_their_own_file(tmp_path):
    text = "import torch\nfrom tests.tasks import load_task\n\nclass Mine:\n    name = 'mine'\n"
    text += "    digits = load_task('digits')\n    model = digits.model\n"
    text += "    train_samples, test_samples = digits.train_samples, digits.test_samples\n"
    found = []
    for number, more in enumerate(("", "", "# other")):
        path = tmp_path / str(number) / "mine.py"
        path.parent.mkdir()
        path.write_text(text + more)
        found.append(federated(RunConfig(task=f"{path}:Mine"), 1).code_hash)
    assert found[0] == found[1] != found[2] and all(found)
    assert federated(RunConfig(), 1).code_hash == ""  # versions of ours are compared anyway


def test_an_evaluation_takes_turns_beside_inference_and_pays_for_its_own(
    agent, rounds, tasks, file, data
):
    file.write_text(SLOW)
    code_hash = tasks.add(str(file)).code_hash
    config = replace(RUN, task=str(file))
    model = federated(config, 16).model()
    node, seen, replies = {**NODE, "energy-budget-j": 1e4, "dataset-path": str(data)}, [], []
    evaluating = threading.Thread(
        target=lambda: replies.append(ask(rounds, "evaluate", code_hash, RUN, node, model))
    )
    before = decode_record(
        RoundOffer, ask(rounds, "query", code_hash, RUN, node).config_records[CONFIG]
    )
    with agent.channel() as channel:
        inference, power = rpc.InferenceStub(channel), rpc.PowerStub(channel)
        drawn_j = power.GetStatus(pb.StatusRequest(), timeout=TIMEOUT_S).energy_j
        evaluating.start()
        while evaluating.is_alive():
            inference.Predict(request(), timeout=TIMEOUT_S)
            status = power.GetStatus(pb.StatusRequest(), timeout=TIMEOUT_S)
            seen += [job.turns for job in status.jobs if job.name.endswith("evaluation")]
            drawn_j = max(drawn_j, status.energy_j)
        answered = [job.answered for job in status.jobs if job.name == "constant"]
    evaluating.join()
    (reply,) = replies
    report = decode_record(EvaluationReport, reply.config_records[CONFIG])
    minibatches = 50  # of two samples
    ended = minibatches + 1  # the last turn finds that there is no other minibatch
    assert len(set(seen)) > 5 and max(seen) <= ended and answered[0] > 5
    assert report.time_s >= minibatches * 0.05 and 0 < report.energy_j < drawn_j
    after = decode_record(
        RoundOffer, ask(rounds, "query", code_hash, RUN, node).config_records[CONFIG]
    )
    assert after.allowance_j == pytest.approx(before.allowance_j - report.energy_j)
    state = Path(agent.settings.state_dir) / "clients" / "7-0.json"
    assert json.loads(state.read_text())["spent_j"] == pytest.approx(report.energy_j)
    profile = profile_from_node_config({**NODE, "device": "twin:orin-agx"})
    client = LocalClient(config, profile, 5, ClientState(), node=(("dataset-path", str(data)),))
    own = client.evaluate(model, 1)[1]
    told = reply.metric_records[METRICS]
    assert {key: told[key] for key in own} == pytest.approx(own)


def test_an_evaluation_and_the_training_of_its_round_are_told_apart(rounds, tasks, file, server):
    code_hash = server(MINE)
    tasks.add(str(file))
    model = federated(replace(RUN, task=str(file)), 16).model()
    assert "train-loss" in ask(rounds, "train", code_hash, model=model).metric_records[METRICS]
    assert "accuracy" in ask(rounds, "evaluate", code_hash, model=model).metric_records[METRICS]


def test_an_evaluation_that_is_cancelled_ends(agent, rounds, tasks, file, data):
    file.write_text(SLOW)
    code_hash = tasks.add(str(file)).code_hash
    model = federated(replace(RUN, task=str(file)), 16).model()
    parts = message(
        "evaluate",
        node={**NODE, "dataset-path": str(data)},
        configured=RUN,
        config={TASK: code_hash},
        arrays=ArrayRecord(model.state_dict()),
    )
    events = rounds.Handle(iter(parts), timeout=TIMEOUT_S)
    next(events)
    with agent.channel() as channel:
        cancel = pb.CancelRequest(round_id="7/1/0", reason="no use")
        assert rpc.RoundsStub(channel).Cancel(cancel, timeout=TIMEOUT_S).found
    reply = content_of(events)
    report = decode_record(EvaluationReport, reply.config_records[CONFIG])
    assert report.decline == "the evaluation was not finished: no use"


def test_the_command_adds_lists_and_removes(tmp_path, file):
    def told(*words):
        return CliRunner().invoke(cli, ["task", *words, "--state-dir", str(tmp_path / "state")])

    added = told("add", str(file))
    assert added.exit_code == 0 and added.output.startswith("my_task, hash ")
    (own,) = OwnTasks(tmp_path / "state").listed()
    assert own.shown_hash in told("list").output and "as added" in told("list").output
    file.write_text(MINE + "\n")
    assert "changed" in told("list").output
    missing = told("remove", "other")
    assert "unknown task of this agent 'other'" in str(missing.exception)
    assert own.shown_hash in told("remove", own.shown_hash).output
    assert OwnTasks(tmp_path / "state").listed() == []
    (tmp_path / "no_task.py").write_text("x = 1\n")
    bad = told("add", str(tmp_path / "no_task.py"))
    assert "no_task.py has no function" in str(bad.exception)
    (tmp_path / "state" / "tasks.json").write_text("[1]")
    assert "no list of tasks" in str(told("list").exception)
