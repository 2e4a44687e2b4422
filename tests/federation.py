"""A real federation on loopback for tests: SuperLink and SuperNodes, TLS, node authentication.

    @pytest.fixture(scope="module")
    def federation(tmp_path_factory):
        nodes = [{"partition-id": i, "num-partitions": 2} for i in range(2)]
        with Federation(tmp_path_factory.mktemp("federation"), nodes) as federation:
            yield federation


    def test_two_jetsons_train(federation):
        result = federation.run(ROOT, {"rounds": 2})
        assert result.status == COMPLETED, result.log

Every process logs to the given folder, which pytest keeps. It starts in about 10 s and a round of
train takes about 6 s: Flower asks for messages every 3 s.
"""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.flower_tools import (
    COMPLETED,
    FlowerRunFailed,
    FlowerTools,
    SubmittedRun,
    free_port,
    tail,
    toml_scalar,
)

__all__ = ["COMPLETED", "Federation", "RunResult"]

_HOST = "127.0.0.1"
_ONLINE_S = 60.0


@dataclass(frozen=True)
class RunResult:
    """How a run ended (`COMPLETED`, or another status of ``flwr ls``) and what it logged."""

    status: str
    log: str


class Federation:
    """A SuperLink and one SuperNode per node config, from entering to leaving the context.

    Parameters
    ----------
    folder : Path
        An empty folder for keys, certificates, logs and Flower's homes.
    node_configs : sequence of dict
        What each SuperNode gets as ``--node-config``.
    node_environment : dict, optional
        Environment variables of the SuperNodes, beside those of this process.

    Raises
    ------
    FlowerRunFailed
        On entering, if a process ends or the nodes are not online within a minute.
    """

    def __init__(
        self,
        folder: Path,
        node_configs: Sequence[Mapping[str, Any]],
        node_environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.address = f"{_HOST}:{free_port()}"
        self._tools = FlowerTools(folder)
        self._node_configs = node_configs
        self._node_environment = node_environment
        self._nodes: list[subprocess.Popen[bytes]] = []
        self._superlink: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Federation:
        try:
            self._start()
        except BaseException:
            self._tools.close()
            self._show_logs()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._tools.close()
        if kind is not None:
            self._show_logs()

    def run(
        self, app_dir: Path, run_config: Mapping[str, Any], timeout_s: float = 180.0
    ) -> RunResult:
        """Run an app to its end; its status says whether it completed.

        Raises
        ------
        FlowerRunFailed
            If the run could not be started, or did not end in time; with what it logged.
        """
        return self.wait(self.submit(app_dir, run_config), timeout_s)

    def submit(self, app_dir: Path, run_config: Mapping[str, Any]) -> SubmittedRun:
        """Start a run; ``await_line(text, timeout_s)`` waits for a text in its log."""
        return self._tools.submit(app_dir, run_config)

    def wait(self, run: SubmittedRun, timeout_s: float = 180.0) -> RunResult:
        """Wait for the end of a run."""
        assert self._superlink is not None
        return RunResult(run.wait(self._superlink, timeout_s), run.log)

    def kill_node(self, i: int) -> None:
        """Take a SuperNode away at once, with what it started, as a power cut does."""
        self._tools.kill(f"node-{i}")

    def node_log(self, i: int) -> str:
        """What a SuperNode and its ClientApps have printed so far."""
        return self._tools.log(f"node-{i}").read_text(errors="replace")

    def _start(self) -> None:
        ca, certificate, key = _write_certificates(self.folder)
        host, _, port = self.address.partition(":")
        self._superlink = self._tools.start(
            "superlink",
            *("flower-superlink", "--enable-supernode-auth", "--host", host, "--port", port),
            *("--ssl-ca-certfile", str(ca), "--ssl-certfile", str(certificate)),
            *("--ssl-keyfile", str(key)),
        )
        self._tools.await_superlink(self._superlink, self.address, ca)
        for i, node_config in enumerate(self._node_configs):
            private, public = _write_node_key(self.folder, i)
            self._tools.flwr("supernode", "register", str(public))
            pairs = (f"{key}={toml_scalar(key, value)}" for key, value in node_config.items())
            self._nodes.append(
                self._tools.start(
                    f"node-{i}",
                    *("flower-supernode", "--superlink", self.address),
                    *("--root-certificates", str(ca), "--host", _HOST, "--port", str(free_port())),
                    *("--auth-supernode-private-key", str(private)),
                    *("--node-config", " ".join(pairs)),
                    home=f"node-{i}-home",
                    env=self._node_environment,
                )
            )
        self._await_nodes()

    def _await_nodes(self) -> None:
        give_up = time.monotonic() + _ONLINE_S
        while True:
            nodes = self._tools.flwr("supernode", "list")["nodes"]
            if sum(node["status"] == "online" for node in nodes) == len(self._nodes):
                return
            ended = [i for i, node in enumerate(self._nodes) if node.poll() is not None]
            if ended or time.monotonic() > give_up:
                which = f"SuperNodes {ended} ended" if ended else "not all SuperNodes are online"
                raise FlowerRunFailed(f"{which}; status: {[node['status'] for node in nodes]}")
            time.sleep(0.2)

    def _show_logs(self) -> None:
        names = ["superlink", *(f"node-{i}" for i in range(len(self._node_configs)))]
        for name in names:
            print(tail(self._tools.log(name)), file=sys.stderr)


def _write_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A CA's certificate, and a certificate and key of the server for the loopback address."""
    ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _name("wattfed test CA")
    ca = (
        _certificate(ca_name, ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ipaddress.ip_address(_HOST)), x509.DNSName("localhost")]
    server = (
        _certificate(_name("localhost"), ca_name, key)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    paths = folder / "ca.crt", folder / "server.pem", folder / "server.key"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(ca.public_bytes(pem))
    paths[1].write_bytes(server.public_bytes(pem))
    paths[2].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write_node_key(folder: Path, i: int) -> tuple[Path, Path]:
    """A SuperNode's key pair as Flower wants it: NIST P-384, in OpenSSH's format."""
    key = ec.generate_private_key(ec.SECP384R1())
    private, public = folder / f"node-{i}.key", folder / f"node-{i}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    private.chmod(0o600)
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )
    return private, public
