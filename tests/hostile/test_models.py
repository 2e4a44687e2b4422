"""Model files whose code does harm, at a real agent: each is refused or contained, with a line."""

from __future__ import annotations

import ctypes
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import grpc
import pytest
import torch

from tests import warm
from tests.client.agent.conftest import (
    PATIENT,
    ROOT,
    TIMEOUT_S,
    AgentThread,
    constant,
    process,
    request,
    settings,
    start,
    warm_models,
)
from wattfed.client.agent import model_host, rpc, sandbox
from wattfed.client.agent.engine_jobs import Ticket
from wattfed.client.agent.model_host import ModelFailed
from wattfed.client.agent.model_process import load_siblings
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.registry import ModelJob
from wattfed.client.agent.served_models import AgentHost, Model, read_model
from wattfed.client.agent.settings import ModelFile
from wattfed.client.agent.tensors import decode_tensor
from wattfed.client.gate import Gate

pytestmark = pytest.mark.processes

__all__ = ["constant", "settings", "start", "warm_models"]  # fixtures

sandboxed = pytest.mark.skipif(bool(sandbox.lack()), reason=f"no sandbox here: {sandbox.lack()}")
SPELL = 9.0  # a sample of it has a hostile model do its harm


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


class Spelled(torch.nn.Module):
    """Answers 1, and waits for a spell; the classes below are each a harm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(1).sum(1, keepdim=True) * 0 + 1
        if bool((x > 8).any()):
            y = self.harm(y)
        return y


class Raises(Spelled):
    def harm(self, y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a sample that this model does not like")


class Hangs(Spelled):
    def harm(self, y: torch.Tensor) -> torch.Tensor:
        while bool(y.sum() > 0):
            y = y + 1  # else torch finds the loop dead, and drops it
        return y


class HangsAlone(Spelled):
    def harm(self, y: torch.Tensor) -> torch.Tensor:
        if y.shape[0] > 1:
            raise RuntimeError("not in company")
        while bool(y.sum() > 0):
            y = y + 1
        return y


class Bombs(Spelled):
    def harm(self, y: torch.Tensor) -> torch.Tensor:
        held = [torch.ones(1 << 24)]
        while len(held) > 0:
            held.append(torch.ones(1 << 24))
        return y


class Writes(Spelled):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def harm(self, y: torch.Tensor) -> torch.Tensor:
        there = torch.from_file(self.path, shared=True, size=2)
        there.fill_(666.0)
        return y + there.sum()


class HangsAtOnce(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.flatten(1).sum(1, keepdim=True) * 0 + 1
        while bool(y.sum() > 0):
            y = y + 1  # else torch finds the loop dead, and drops it
        return y


def scripted(folder, model, name="bad") -> ModelFile:
    path = folder / f"{name}.ts"
    torch.jit.script(model).save(str(path))
    return ModelFile(name, str(path), inputs="2x2", latency_s=5.0, largest_batch=8)


@cache
def archived() -> dict[str, bytes]:
    """The members of a .pt2."""
    shapes = ({0: torch.export.Dim("n", max=64)},)
    program = torch.export.export(
        torch.nn.Linear(3, 2), (torch.zeros(2, 3),), dynamic_shapes=shapes
    )
    torch.export.save(program, file := io.BytesIO())
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def exported(path, **changed) -> str:
    """A .pt2 with members of its archive in place of its own."""
    members = {**archived()}
    root = next(iter(members)).partition("/")[0]
    for name, change in changed.items():
        member = f"{root}/{name}"
        members[member] = change(members.get(member, b""))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return str(path)


def hosting(**changed) -> model_host.Hosting:
    """What a model may take, on a busy machine too."""
    return model_host.Hosting(load_s=TIMEOUT_S, **changed)


def refusal(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def predict(agent: AgentThread, value=0.0, model="bad", **fields):
    with agent.channel() as channel:
        stub = rpc.InferenceStub(channel)
        return stub.Predict(request(value, model=model, **fields), timeout=TIMEOUT_S)


def answer(reply) -> float:
    return float(decode_tensor(reply.outputs[0]))


def until_it_answers(agent) -> float:
    """Seconds until the bad model is served again."""
    began_s = time.monotonic()
    while time.monotonic() < began_s + TIMEOUT_S:
        try:
            assert answer(predict(agent)) == 1.0
            return time.monotonic() - began_s
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            time.sleep(0.1)
    raise AssertionError("it is not started again")


def pickled(mark):
    file = io.BytesIO()
    torch.save((Evil(mark),), file)
    return lambda _: file.getvalue()


def with_pickled_weight(data):
    config = json.loads(data)
    for weight in config["config"].values():
        weight["use_pickle"] = True
    return json.dumps(config).encode()


def with_opaque_constant(data):
    tensor = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    return json.dumps({"config": {"bad": {**tensor, "tensor_meta": None}}}).encode()


ARCHIVES = {
    "example inputs": lambda mark: {"data/sample_inputs/model.pt": pickled(mark)},
    "weights of old": lambda mark: {"data/weights/model.pt": pickled(mark)},
    "pickled weights": lambda mark: {
        "data/weights/model_weights_config.json": with_pickled_weight,
        "data/weights/weight_0": pickled(mark),
        "data/weights/weight_1": pickled(mark),
    },
    "an opaque constant": lambda mark: {
        "data/constants/model_constants_config.json": with_opaque_constant,
        "data/constants/opaque_obj_0": lambda _: pickle.dumps(Evil(mark)),
    },
}


@pytest.mark.usefixtures("warm_models")
@pytest.mark.parametrize(
    ("where", "unsafe"),
    [
        *((where, bool(sandbox.lack())) for where in ARCHIVES),
        *((where, True) for where in ("example inputs", "an opaque constant")),
    ],
)
def test_a_pt2_with_pickled_code_is_refused_and_the_code_not_run(where, unsafe, tmp_path):
    mark = tmp_path / "mark"
    path = exported(tmp_path / "bad.pt2", **ARCHIVES[where](mark))
    limits = hosting(unsafe=unsafe)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.pt2.*what works is torch\.export"):
        read_model(ModelFile("bad", path), hosting=limits)
    assert not mark.exists() and not limits._processes


@sandboxed
@pytest.mark.usefixtures("warm_models")
def test_an_expression_that_torch_evaluates_as_python_gets_nowhere(tmp_path):
    mark = tmp_path / "mark"
    code = f"__import__('os').mkdir({str(mark)!r})"

    def poisoned(data):
        program = json.loads(data)
        poison(program, code)
        return json.dumps(program).encode()

    path = exported(tmp_path / "bad.pt2", **{"models/model.json": poisoned})
    with pytest.raises(ValueError, match="ermi"):
        read_model(ModelFile("bad", path), hosting=hosting())
    assert not mark.exists()


def poison(node, code):
    """Put code in place of every symbolic expression."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key == "expr_str":
            node[key] = code
        elif isinstance(value, (dict, list)):
            poison(value, code)


CLOSED = """
import os, socket, sys
from wattfed.client.agent import sandbox
kept = os.open("/dev/null", os.O_WRONLY)
sandbox.begin()
sandbox.close((1, 2), 1 << 28, gpu=False)
try:
    print("done", eval(sys.argv[1]))
except (OSError, MemoryError) as error:
    print(type(error).__name__)
"""


@sandboxed
@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/made', 'w')",
        "os.stat('/etc/passwd')",
        "os.listdir('/')",
        "os.unlink('/tmp/none')",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.kill(os.getppid(), 0)",
        "os.write(kept, b'x')",
        "bytes(1 << 30)",
    ],
)
def test_a_closed_sandbox_refuses(attempt):
    with process(CLOSED, attempt) as child:
        assert child.stdout.readline().strip() in ("PermissionError", "MemoryError")


@sandboxed
def test_a_closed_sandbox_binds_threads_that_ran_before_and_lets_new_ones_run():
    code = CLOSED.replace("sandbox.begin()", BEFORE + "sandbox.begin()")
    with process(code, "[go.set(), earlier.join(), later()] and told") as child:
        assert child.stdout.readline().strip() == "done ['PermissionError', 'ran']"


@sandboxed
def test_what_starts_in_a_sandbox_names_its_threads_as_cuda_does():
    code = CLOSED.replace("sandbox.close((1, 2), 1 << 28, gpu=False)", "")
    with process(code, "open('/proc/thread-self/comm', 'w').write('x')") as child:
        assert child.stdout.readline().strip() == "done 1"


@sandboxed
def test_libraries_that_cuda_opens_at_first_use_are_loaded_before(tmp_path):
    ctypes.CDLL("libseccomp.so.2")
    maps = Path("/proc/self/maps")
    library = next(line.split()[5] for line in maps.read_text().splitlines() if "seccomp" in line)
    for name in ("libcudnn.so.9", "libcudnn_ops.so.9", "libc_ops.so.6"):
        shutil.copy(library, tmp_path / name)
    (tmp_path / "libcudnn_adv.so.9").write_text("of no use")
    mapped = [
        f"7f00-7f01 r-xp 00 00:00 7 {tmp_path}/{name}" for name in ("libcudnn.so.9", "libc.so.6")
    ]
    load_siblings("\n".join([*mapped[:1], "7f02-7f03 rw-p 00 00:00 0", *mapped[1:]]))
    assert f"{tmp_path}/libcudnn_ops.so.9" in maps.read_text()
    assert "libc_ops" not in maps.read_text()


BEFORE = """
import threading
go, told = threading.Event(), []
def attempt():
    go.wait()
    try:
        os.open("/etc/passwd", os.O_RDONLY)
    except OSError as error:
        told.append(type(error).__name__)
def later():
    thread = threading.Thread(target=lambda: told.append("ran"))
    thread.start()
    thread.join()
earlier = threading.Thread(target=attempt)
earlier.start()
"""


@sandboxed
def test_torchscript_neither_reads_nor_writes_a_file(start, settings, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(8))
    agent = start(settings, model=(scripted(tmp_path, Writes(str(victim))),))
    error = refusal(lambda: predict(agent, SPELL))
    assert error.code() is grpc.StatusCode.INTERNAL and "not permitted" in error.details()
    assert victim.read_bytes() == bytes(8)
    assert answer(predict(agent)) == 1.0


@sandboxed
@pytest.mark.usefixtures("warm_models")
def test_a_model_that_hangs_is_ended_and_started_again_while_others_answer(
    start, settings, tmp_path
):
    models = (scripted(tmp_path, Hangs()), *settings.model)
    agent = start(settings, model=models, limits=replace(PATIENT, batch_s=1.0))
    with agent.channel() as channel:
        stub = rpc.InferenceStub(channel)
        hanging = stub.Predict.future(request(SPELL, model="bad"), timeout=TIMEOUT_S)
        replies = [
            stub.Predict.future(request(model="constant"), timeout=TIMEOUT_S) for _ in range(20)
        ]
        assert {answer(reply.result()) for reply in replies} == {1.0}
        error = refusal(hanging.result)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "has not answered within 1 s" in error.details()
        listed = {m.name: m for m in stub.ListModels(pb.ListModelsRequest()).models}
        assert "has not answered" in listed["bad"].broken and not listed["constant"].broken
        assert listed["bad"].isolation == "sandbox"
        assert "is broken" in refusal(lambda: predict(agent)).details()
    until_it_answers(agent)


def children(of=None) -> list[int]:
    """The model processes of a process."""
    of = os.getpid() if of is None else of
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            is_model = b"model_process" in (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == of and is_model:
            found.append(int(status.parent.name))
    return found


def test_a_model_whose_process_dies_is_started_again_and_told(start, settings, tmp_path):
    agent = start(settings, model=(scripted(tmp_path, Raises()),))
    (victim,) = children()
    os.kill(victim, signal.SIGKILL)
    error = refusal(lambda: predict(agent))
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "killed by SIGKILL" in error.details()
    until_it_answers(agent)
    assert predict(agent).model_version == 1
    agent.close()
    assert not children()


@sandboxed
def test_a_model_that_takes_all_memory_fails_its_request_and_no_other(start, settings, tmp_path):
    models = (scripted(tmp_path, Bombs()), *settings.model)
    agent = start(settings, model=models, limits=replace(PATIENT, model_bytes=1 << 29))
    assert "alloc" in refusal(lambda: predict(agent, SPELL)).details()
    assert answer(predict(agent)) == answer(predict(agent, model="constant")) == 1.0


@pytest.mark.usefixtures("warm_models")
def test_a_sample_that_fails_fails_alone(start, settings, tmp_path):
    agent = start(settings, model=(scripted(tmp_path, Raises()),))
    values = [0.0, 0.0, SPELL, 0.0]
    with agent.channel() as channel:
        stub = rpc.InferenceStub(channel)
        with Gate(socket=agent.socket) as gate, gate.minibatch("train"):
            futures = [
                stub.Predict.future(request(value, model="bad"), timeout=TIMEOUT_S)
                for value in values
            ]
            until_queued(channel, len(values))
        error = refusal(futures.pop(2).result)
        assert error.code() is grpc.StatusCode.INTERNAL and "does not like" in error.details()
        replies = [future.result() for future in futures]
        assert all(answer(reply) == 1.0 and reply.batch_size > 1 for reply in replies)
        jobs = rpc.PowerStub(channel).GetStatus(pb.StatusRequest()).jobs
        (job,) = (job for job in jobs if job.name == "bad")
    assert (job.arrived, job.answered, job.withdrawn) == (4, 3, 1)


def until_queued(channel, count):
    for status in rpc.PowerStub(channel).Telemetry(pb.TelemetryRequest(period_s=0.1)):
        if any(job.queued == count for job in status.jobs):
            return


def test_a_sample_that_fails_in_the_agents_own_process_fails_alone_too():
    model = Model("m", 1, "", "state-dict", (), AgentHost(Raises().eval()))
    good, bad = (torch.zeros(2, 2),), (torch.full((2, 2), SPELL),)
    first, second = model.predict_each([good, bad])
    assert first[0].item() == 1.0 and "does not like" in str(second)
    with pytest.raises(RuntimeError, match="does not like"):
        model.predict_each([bad, bad])


@sandboxed
@pytest.mark.usefixtures("warm_models")
def test_a_model_that_hangs_on_a_sample_alone_is_told_to_be_broken(tmp_path):
    told, limits = [], hosting(batch_s=1.0)
    model = read_model(scripted(tmp_path, HangsAlone()), hosting=limits)
    bad = Ticket("bad", (torch.full((2, 2), SPELL),), 1.0, told.append)
    with pytest.raises(ModelFailed, match="not in company"):
        ModelJob(model, ModelFile(), broke=told.append).run([bad, bad])
    assert told == [model] and "has not answered within 1 s" in model.host.broken
    limits.close()


@pytest.mark.parametrize("model", [HangsAtOnce, Hangs], ids=["loading", "batch"])
def test_sigterm_ends_the_agent_while_a_model_hangs(model, tmp_path):
    file = scripted(tmp_path, model())
    socket = str(tmp_path / "a.sock")
    command = [sys.executable, "-m", "wattfed.client.agent.cli", "serve", "--socket", socket]
    command += ["--state-dir", str(tmp_path / "state"), "--lease", "2s", "--threads", "1"]
    command += ["--model", f"bad={file.path},inputs=2x2,latency=30s"]
    (tmp_path / "patient.toml").write_text(
        f"[limits]\nload_s = {TIMEOUT_S}\nbatch_s = {TIMEOUT_S}\n"
    )
    command += ["--config", str(tmp_path / "patient.toml")]
    agent = warm.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        if model is Hangs:
            assert any(line.startswith("serving at") for line in agent.stderr)
            channel = grpc.insecure_channel(f"unix:{socket}")
            asked = rpc.InferenceStub(channel).Predict.future(request(SPELL), timeout=TIMEOUT_S)
            assert not asked.done()
        (victim,) = wait_until_busy(agent.pid)
        agent.send_signal(signal.SIGTERM)
        agent.wait(TIMEOUT_S)  # until then nothing else would end the model
        assert not Path(f"/proc/{victim}").exists()
    finally:
        agent.kill()
        agent.wait()
        agent.stderr.close()


def test_a_model_that_hangs_dies_with_an_agent_that_is_killed(tmp_path):
    """Its agent can tell it nothing any more."""
    code = (
        "import sys; from wattfed.client.agent.served_models import read_model; from wattfed.client"
    )
    code += ".agent.settings import ModelFile; read_model(ModelFile('m', sys.argv[1], inputs='2'))"
    file = scripted(tmp_path, HangsAtOnce())
    with process(code, file.path) as agent:
        (victim,) = wait_until_busy(agent.pid)
        agent.kill()
        until_s = time.monotonic() + TIMEOUT_S
        while Path(f"/proc/{victim}").exists() and time.monotonic() < until_s:
            time.sleep(0.05)
    assert not Path(f"/proc/{victim}").exists()


def wait_until_busy(parent) -> list[int]:
    """The model processes of an agent, once one of them computes in its sandbox for a while."""
    until_s, before = time.monotonic() + TIMEOUT_S, {}
    while time.monotonic() < until_s:
        found = children(parent)
        for child in found:
            try:
                stat = Path(f"/proc/{child}/stat").read_text()
                closed = "Seccomp:\t2" in Path(f"/proc/{child}/status").read_text()
            except OSError:
                continue
            ticks = int(stat.rpartition(")")[2].split()[11])
            if closed and ticks > before.setdefault(child, ticks) + 30:
                return found
        time.sleep(0.1)
    raise AssertionError("no model hangs")


LIAR = """#!{python}
import json, os, struct, sys
channel = json.loads(sys.argv[3])["channel"]
def tell(text):
    os.write(channel, struct.pack("<I", len(text)) + text.encode())
for text in {texts}:
    if text == "close":
        os.close(channel)
        while True: pass
    tell(text)
    os.read(channel, 1 << 16)
"""
READ = '{"inputs": [["torch.float32", 2]], "fixed_batch": null}'


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["[]"], "made no sense"),
        (["{{{{"], "made no sense"),
        (['{"inputs": [["torch.nn", 2]], "fixed_batch": null}'], "made no sense"),
        (['{"inputs": [["torch.float32", 4611686018427387904]], "fixed_batch": 8}'], "no sense"),
        (["[" * 60_000], "made no sense"),
        (["{" + " " * 70_000 + "}"], "made no sense"),
        ([], "ended before it had answered"),
        ([READ, '{"tensors": [[0, 999999999]]}'], "made no sense"),
        ([READ, '{"tensors": [[0, -1]]}'], "made no sense"),
        ([READ, '{"tensors": [[99, 1]]}'], "made no sense"),
        ([READ, '{"tensors": [[0, true]]}'], "made no sense"),
        ([READ, '{"tensors": 5}'], "made no sense"),
        ([READ, '{"error": "\\u001b[2J\\nfake line"}'], r"float32: \[2J fake line$"),
        ([READ], "ended before it had answered"),
        ([READ, "close"], "was killed by SIGKILL before it had answered"),
    ],
)
def test_a_process_that_talks_nonsense_is_ended(texts, told, tmp_path, monkeypatch):
    liar = tmp_path / "liar"
    liar.write_text(LIAR.format(python=sys.executable, texts=texts))
    liar.chmod(0o700)
    monkeypatch.setattr(model_host.sys, "executable", str(liar))
    limits = hosting(unsafe=True)
    with pytest.raises(ValueError, match=told):
        read_model(ModelFile("bad", str(liar), inputs="2"), hosting=limits)
    assert not limits._processes


def test_without_a_sandbox_only_a_flag_lets_code_in_and_status_says_so(
    start, settings, tmp_path, monkeypatch
):
    monkeypatch.setattr(sandbox, "lack", lambda: "libseccomp.so.2 is missing")
    file = scripted(tmp_path, Raises())
    with pytest.raises(ValueError, match="libseccomp.*missing.*--allow-unsafe-models"):
        read_model(file)
    agent = start(settings, model=(file,), allow_unsafe_models=True)
    assert answer(predict(agent)) == 1.0
    (child,) = children()
    assert child != os.getpid() and "Seccomp:\t0" in Path(f"/proc/{child}/status").read_text()
    with agent.channel() as channel:
        (listed,) = rpc.InferenceStub(channel).ListModels(pb.ListModelsRequest()).models
    assert listed.isolation == "process, no sandbox"
