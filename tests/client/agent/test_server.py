import datetime
import ipaddress
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from powerctl.errors import DeviceUnavailable, InvalidInput
from tests import warm
from tests.client.agent.conftest import CONSTANT, ROOT, request, status_of
from tests.waiting import TIMEOUT_S, await_state
from wattfed.client.agent import rpc
from wattfed.client.agent.connecting import connect
from wattfed.client.agent.opening import claim_state
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.settings import read_settings
from wattfed.client.gate import Gate

pytestmark = pytest.mark.processes

TOKEN = "0123456789abcdef0123456789abcdef"
MODE = "4c/1190/624/2133"


@pytest.fixture
def tls(tmp_path) -> dict[str, str]:
    """A certificate for this host that signs itself, its key, and a token file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    files = {
        "tls_cert": certificate.public_bytes(pem),
        "tls_key": key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        "token_file": f"# of the tests\n{TOKEN}\n".encode(),
    }
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
        (tmp_path / file).chmod(0o600)
    return {file: str(tmp_path / file) for file in files}


@pytest.fixture
def remote(start, settings, tls):
    """How an agent is reached over TCP: its address, and the certificate to trust."""
    agent = start(settings, listen="127.0.0.1:0", **tls)
    return agent.where.split(", ")[1].removesuffix(" (TLS)"), tls["tls_cert"]


def secure(remote, token: str) -> grpc.Channel:
    address, certificate = remote
    return grpc.secure_channel(
        address,
        grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(Path(certificate).read_bytes()),
            grpc.access_token_call_credentials(token),
        ),
    )


def test_with_tls_and_token_a_request_over_tcp_is_answered(remote):
    with secure(remote, TOKEN) as channel:
        reply = rpc.InferenceStub(channel).Predict(request(), timeout=TIMEOUT_S)
    assert reply.model_version == 1


@pytest.mark.parametrize("token", ["", "0" * 32, TOKEN[:-1]])
def test_without_the_token_every_call_over_tcp_is_unauthenticated(remote, token):
    with secure(remote, token) as channel:
        calls = [
            lambda: rpc.InferenceStub(channel).Predict(request(), timeout=TIMEOUT_S),
            lambda: list(
                rpc.PowerStub(channel).Telemetry(pb.TelemetryRequest(), timeout=TIMEOUT_S)
            ),
            lambda: list(
                rpc.InferenceStub(channel).PredictStream(iter([request()]), timeout=TIMEOUT_S)
            ),
        ]
        codes = {status_of(call) for call in calls}
    assert codes == {grpc.StatusCode.UNAUTHENTICATED}


def test_without_tls_nothing_is_answered_over_tcp(remote):
    with grpc.insecure_channel(remote[0]) as channel:
        call = rpc.InferenceStub(channel).ListModels
        assert status_of(lambda: call(pb.ListModelsRequest(), timeout=5)) in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )


def test_over_tcp_there_is_no_loading_of_files_and_no_gate(remote):
    with secure(remote, TOKEN) as channel:
        load = pb.LoadModelRequest(name="x", path="/etc/passwd")
        code = status_of(lambda: rpc.InferenceStub(channel).LoadModel(load, timeout=TIMEOUT_S))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        turns = rpc.GateStub(channel).Turns(iter([pb.TurnRequest()]), timeout=TIMEOUT_S)
        assert status_of(lambda: list(turns)) is grpc.StatusCode.UNIMPLEMENTED


def test_the_health_service_tells_of_the_agent_and_of_each_service(agent):
    with agent.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "wattfed.agent.v1.Inference", "wattfed.agent.v1.Gate"):
            check = health_pb2.HealthCheckRequest(service=service)
            answer = health.Check(check, timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_status_counts_requests_and_names_the_mode_and_the_source_of_energy(start, settings):
    agent = start(settings, mode=MODE)
    with agent.channel() as channel:
        for _ in range(3):
            rpc.InferenceStub(channel).Predict(request(), timeout=TIMEOUT_S)
        statuses = rpc.PowerStub(channel).Telemetry(pb.TelemetryRequest(period_s=0.1))
        first, second = next(statuses), next(statuses)
        statuses.cancel()
    (job,) = second.jobs
    assert (job.arrived, job.answered, job.within, job.turns) == (3, 3, 3, 3)
    assert second.mode == second.plan.mode == MODE
    assert second.energy_j > first.energy_j and second.power_w > 0
    assert second.energy_source


def test_metrics_are_to_be_had_in_prometheus_form(start, settings):
    pytest.importorskip("prometheus_client")
    from wattfed.client.agent.telemetry import Metrics

    agent = start(settings, Metrics(), metrics="127.0.0.1:0")
    with agent.channel() as channel:
        rpc.InferenceStub(channel).Predict(request(), timeout=TIMEOUT_S)
    with Gate("app", socket=agent.socket) as gate, gate.minibatch("train"):
        pass
    address = agent.where.rpartition("metrics at ")[2]
    counts = {
        'wattfed_latency_seconds_count{workload="constant"} 1.0',
        'wattfed_turn_seconds_count{workload="gate:app"} 1.0',
    }

    def lines():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=TIMEOUT_S) as answer:
            return answer.read().decode().splitlines()

    await_state(lambda: counts <= set(lines()))  # answers and releases go before their bookkeeping
    families = {line.split("{")[0].split(" ")[0] for line in lines()}
    assert families >= {"wattfed_queued", "wattfed_mode", "wattfed_energy_joules_total"}


def serving(tmp_path, *options: str) -> warm.Popen:
    """A `wattfed-agent serve` process that answers."""
    command = [sys.executable, "-m", "wattfed.client.agent.cli", "serve", *options]
    command += ["--socket", str(tmp_path / "p.sock"), "--state-dir", str(tmp_path / "p")]
    process = warm.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("serving at"):
            return process
    raise AssertionError("".join(lines))


def test_sigterm_answers_what_runs_refuses_what_waits_and_restores(tmp_path, constant):
    options = ("--model", f"constant={constant(1)},task={CONSTANT},latency=600s", "--mode", MODE)
    process = serving(tmp_path, *options)
    found = tmp_path / "p" / "found-mode.json"
    socket = str(tmp_path / "p.sock")
    try:
        assert found.exists()
        gate, channel = Gate(socket=socket), grpc.insecure_channel(f"unix:{socket}")
        with gate, channel, gate.minibatch("train"):
            call = rpc.InferenceStub(channel).Predict.future(request(), timeout=TIMEOUT_S)
            for status in rpc.PowerStub(channel).Telemetry(pb.TelemetryRequest(period_s=0.1)):
                if any(job.queued for job in status.jobs):
                    break
            process.send_signal(signal.SIGTERM)
            assert status_of(call.result) is grpc.StatusCode.UNAVAILABLE
        assert process.wait(TIMEOUT_S) == 0
        assert not found.exists() and not Path(socket).exists()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_after_a_kill_the_next_agent_restores_the_mode_that_the_first_one_found(tmp_path):
    first = serving(tmp_path, "--mode", MODE)
    first.kill()
    first.wait()
    first.stderr.close()
    assert json.loads((tmp_path / "p" / "found-mode.json").read_text())["mode"][0] == 12
    second = serving(tmp_path)
    try:
        with connect(str(tmp_path / "p.sock")) as channel:
            status = rpc.PowerStub(channel).GetStatus(pb.StatusRequest(), timeout=TIMEOUT_S)
        assert status.mode.startswith("12c/")
        assert not (tmp_path / "p" / "found-mode.json").exists()
    finally:
        second.terminate()
        assert second.wait(TIMEOUT_S) == 0
        second.stderr.close()


def test_a_second_agent_of_a_state_directory_is_told_so(tmp_path):
    with claim_state(tmp_path), pytest.raises(DeviceUnavailable, match="another agent"):
        claim_state(tmp_path)


def test_what_a_killed_agent_has_half_written_goes_when_the_next_one_starts(tmp_path):
    (tmp_path / "clients").mkdir()
    for name in ("found-mode.json", "clients/7-0.json"):
        (tmp_path / name).write_text("{}")
        (tmp_path / f"{name}.0123abcd.partial").write_text("{")
    with claim_state(tmp_path):
        kept = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert kept == {"lock", "found-mode.json", "clients/7-0.json"}


def test_tcp_without_tls_or_with_a_token_that_others_may_read_is_no_setting(tls):
    from wattfed.client.agent.security import read_tokens

    with pytest.raises(InvalidInput, match="--tls-cert"):
        read_settings(None, listen="0.0.0.0:1")
    Path(tls["token_file"]).chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_tokens(Path(tls["token_file"]))


def test_help_shows_examples_and_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['wattfed-agent', '--help']\n"
        "from wattfed.client.agent.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'torch', 'flwr', 'grpc', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert "Examples:" in done.stdout
