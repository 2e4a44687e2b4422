"""Other users, other certificates, and names that look like paths get nowhere."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import pytest

from powerctl.errors import PowerctlError
from tests.client.agent.conftest import status_of
from tests.client.agent.test_rounds import NODE, trained
from tests.waiting import TIMEOUT_S
from wattfed.client.agent import rpc
from wattfed.client.agent.connecting import connect
from wattfed.client.agent.framing import GATE_SUFFIX
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.server.deploy.keys import Keys

pytestmark = pytest.mark.processes

NOBODY = 65534
_CONNECT = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("suffix", ["", GATE_SUFFIX], ids=["agent", "gate"])
def test_another_user_is_refused_by_the_socket(agent, suffix):
    folder = os.path.dirname(agent.socket)
    while folder != "/":  # the socket itself refuses, not a folder on the way to it
        os.chmod(folder, os.stat(folder).st_mode | 0o011)
        folder = os.path.dirname(folder)
    command = [sys.executable, "-c", _CONNECT, agent.socket + suffix, str(NOBODY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.stdout == "refused\n", done.stderr


def test_a_client_refuses_an_agent_that_its_authority_has_not_signed(start, settings, tmp_path):
    certificate, key = Keys(tmp_path / "ours").certificate("agent", ["localhost"])
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    token.chmod(0o600)
    tls = {"tls_cert": str(certificate), "tls_key": str(key), "token_file": str(token)}
    agent = start(settings, listen="127.0.0.1:0", **tls)
    address = agent.where.split(", ")[1].removesuffix(" (TLS)").replace("127.0.0.1", "localhost")

    def ask(authority):
        with connect("", address, str(authority), str(token)) as channel:
            return rpc.InferenceStub(channel).ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S)

    assert ask(Keys(tmp_path / "ours").authority).models
    with pytest.raises(PowerctlError, match="not of an authority trusted here"):
        ask(Keys(tmp_path / "others").authority)


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", "a/../../../escaped"])
def test_a_path_in_a_models_name_or_a_run_is_only_a_name(agent, tmp_path, name):
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    with agent.channel() as channel:
        load = pb.LoadModelRequest(name=name, path=name)
        code = status_of(lambda: rpc.InferenceStub(channel).LoadModel(load, timeout=TIMEOUT_S))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        trained(rpc.RoundsStub(channel), node={**NODE, "run-id": name}, minibatches=1)
    after = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    assert after == before
    (state,) = (tmp_path / "clients").iterdir()
    assert state.suffix == ".json"
