"""An agent that cannot start, or cannot be reached, says in one line why and what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import torch

from powerctl.errors import PowerctlError
from tests.client.agent.conftest import TIMEOUT_S, Constant
from tests.proxy import Proxy
from wattfed.client.agent import rpc
from wattfed.client.agent.connecting import connect
from wattfed.client.agent.opening import open_kept
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.settings import ModelFile
from wattfed.server.deploy.keys import Keys

pytestmark = pytest.mark.processes

# Runs a command without what lets root write and read everything (CAP_DAC_OVERRIDE, _READ_SEARCH).
ORDINARY = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def said(error: pytest.ExceptionInfo[PowerctlError]) -> str:
    """The error's text, which is one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def reached(tmp_path_factory):
    """Addresses: of a server with TLS, of the same under another name, and of one without TLS."""
    folder = tmp_path_factory.mktemp("reached")
    certificate, key = Keys(folder / "ours").certificate("agent", ["jetson-0"])
    Keys(folder / "others").certificate("agent", ["jetson-0"])
    (folder / "token").write_text("0123456789abcdef\n")
    (folder / "junk").write_text("nothing\n")
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pair = (key.read_bytes(), certificate.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    proxy = Proxy(f"127.0.0.1:{port}", host="127.0.0.2")
    plain = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                caller, _ = plain.accept()
            except OSError:
                return
            with caller:
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    yield {
        "folder": folder,
        "tls": f"127.0.0.1:{port}",
        "other name": proxy.address,
        "plain": f"127.0.0.1:{plain.getsockname()[1]}",
    }
    plain.shutdown(socket.SHUT_RDWR)
    plain.close()
    proxy.close()
    server.stop(None)


@pytest.mark.parametrize(
    ("where", "ca", "told"),
    [
        ("other name", "ours/ca.crt", "its certificate is of another name: reach it by one that"),
        ("tls", "others/ca.crt", "not of an authority trusted here: give --ca"),
        ("tls", "", "not of an authority trusted here: give --ca"),
        ("tls", "junk", "--ca is no file of PEM certificates"),
        ("tls", "none.crt", "none.crt: no such file"),
        ("plain", "ours/ca.crt", "speaks no TLS; is it the agent's --listen?"),
        ("127.0.0.1:1", "ours/ca.crt", "no agent answers there; start one: wattfed-agent serve"),
    ],
)
def test_who_cannot_be_reached_is_told_with_what_to_do(reached, where, ca, told):
    folder = reached["folder"]
    with (
        pytest.raises(PowerctlError) as error,
        connect(
            "", reached.get(where, where), str(folder / ca) if ca else "", str(folder / "token")
        ) as channel,
    ):
        rpc.InferenceStub(channel).ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S)
    assert told in said(error)


def test_a_file_without_a_token_is_named(tmp_path):
    (tmp_path / "token").touch()
    with (
        pytest.raises(PowerctlError, match="token: no token in it"),
        connect("", "127.0.0.1:1", "", str(tmp_path / "token")),
    ):
        pass


def test_a_port_in_use_and_a_key_of_another_certificate_are_named(start, settings, tmp_path):
    keys = Keys(tmp_path / "keys")
    certificate, key = keys.certificate("agent", ["jetson-0"])
    (tmp_path / "token").write_text("0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    tls = {"tls_cert": str(certificate), "token_file": str(tmp_path / "token")}
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(PowerctlError, match="address already in use") as error:
            start(settings, listen=listen, tls_key=str(key), **tls)
        assert f"cannot listen at {listen}" in said(error)
        with pytest.raises(PowerctlError, match="are no certificate and its key") as error:
            start(settings, listen=listen, tls_key=str(keys.folder / "ca.key"), **tls)
        assert f"{certificate} and {keys.folder / 'ca.key'}" in said(error)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"inputs": "2x2"}, "torch.save wrote it, which pickles"),
        ({"task": "digits"}, "it holds a whole model, or other code; save it with torch.save("),
    ],
)
def test_a_whole_model_of_torch_save_is_told_how_to_be_saved(start, settings, tmp_path, how, told):
    path = tmp_path / "model.pt"
    torch.save(Constant(1), path)
    with pytest.raises(PowerctlError) as error:
        start(settings, model=(ModelFile("m", str(path), **how),))
    assert told in said(error) and str(path) in said(error)


@pytest.mark.parametrize("spec", ["twin:orin-agx", "host:orin-agx"])
def test_an_agent_of_a_twin_says_that_its_rounds_take_their_time(caplog, tmp_path, spec):
    caplog.set_level("INFO", "wattfed.agent")
    open_kept(spec, tmp_path)
    line = "twin:orin-agx is simulated in real time: rounds take as long as on the board"
    assert caplog.messages == [line] * (spec == "twin:orin-agx")


@pytest.mark.skipif(sys.platform != "linux", reason="drops a capability of Linux")
@pytest.mark.parametrize(
    ("state", "agent_socket", "told"),
    [
        ("locked/state", "a.sock", "cannot write the state to {}/locked/state: Permission denied"),
        ("state", "locked/a.sock", "no socket at {0}/locked/a.sock: {0}/locked cannot be written"),
    ],
)
def test_a_folder_that_may_not_be_written_is_named(tmp_path, state, agent_socket, told):
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o555)
    command = [
        *(sys.executable, "-c", ORDINARY, str(Path(sys.executable).with_name("wattfed-agent"))),
        *("serve", "--device", "host:orin-agx", "--socket", str(tmp_path / agent_socket)),
        *("--state-dir", str(tmp_path / state)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    *progress, line = done.stderr.splitlines()
    assert all(text.endswith(" so far") for text in progress)  # on a busy machine
    assert done.returncode == 2 and told.format(tmp_path) in line
    assert line.rpartition("; ")[2].startswith("give another --s")
