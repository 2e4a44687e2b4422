"""Certificates and node keys as files: who trusts whom, and who may read what."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from powerctl.errors import InvalidInput
from wattfed.server.cli import cli
from wattfed.server.deploy.keys import Keys


@pytest.fixture
def keys(tmp_path) -> Keys:
    return Keys(tmp_path / "keys")


def handshake(server: tuple, trusted, host: str) -> None:
    """One TLS connection over loopback; raises as the client does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*map(str, server))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):  # the client may not like it
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        client = ssl.create_default_context(cafile=str(trusted))
        client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
        try:
            with socket.create_connection(listener.getsockname()) as plain:
                client.wrap_socket(plain, server_hostname=host).close()
        finally:
            thread.join()


@pytest.mark.parametrize("host", ["fl.example.org", "10.0.0.7", "localhost", "127.0.0.1"])
def test_a_server_is_known_by_every_name_it_is_reached_by(keys, host):
    pair = keys.certificate("server", ["fl.example.org", "10.0.0.7"])
    handshake(pair, keys.authority, host)


def test_a_server_of_another_name_or_another_authority_is_refused(keys, tmp_path):
    pair = keys.certificate("server", ["fl.example.org"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(pair, keys.authority, "other.example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        handshake(pair, Keys(tmp_path / "others").authority, "fl.example.org")


def test_a_node_key_is_what_flower_wants(keys):
    private, public = keys.node("jetson-0")
    key = serialization.load_ssh_private_key(private.read_bytes(), password=None)
    assert isinstance(key.curve, ec.SECP384R1)
    own = serialization.load_ssh_public_key(public.read_bytes())
    assert own.public_numbers() == key.public_key().public_numbers()


def test_secrets_are_their_owners_alone(keys):
    keys.certificate("server", ["localhost"])
    keys.node("jetson-0")
    secrets = ["ca.key", "server.key", "nodes/jetson-0"]
    assert {(keys.folder / name).stat().st_mode & 0o777 for name in secrets} == {0o600}


def test_what_is_there_is_kept_and_another_host_gets_another_certificate(keys):
    def contents():
        return {p: p.read_bytes() for p in keys.folder.rglob("*") if p.is_file()}

    def make(*hosts):
        again = Keys(keys.folder)
        again.certificate("server", hosts)
        again.node("jetson-0")
        return contents()

    first = make("a.example.org")
    assert make("a.example.org") == first
    moved = make("b.example.org")
    assert {path.name for path in first if moved[path] != first[path]} == {"server.crt"}


@pytest.mark.parametrize("name", ["", "../server", "a/b", ".hidden", "a b"])
def test_a_name_is_no_path(keys, name):
    with pytest.raises(InvalidInput, match="is no name"):
        keys.node(name)


def test_a_folder_that_is_not_whole_says_so(keys):
    (keys.folder / "ca.key").unlink()
    with pytest.raises(InvalidInput, match="belong together"):
        Keys(keys.folder)
    keys.authority.write_text("scribble")
    (keys.folder / "ca.key").write_text("scribble")
    with pytest.raises(InvalidInput, match=r"cannot read the certificate .*ca\.crt"):
        Keys(keys.folder).certificate("server", ["localhost"])


def test_the_command_says_which_host_needs_which_file(tmp_path):
    options = ["--certificate", "server=localhost,10.0.0.1", "--node", "jetson-0"]
    done = CliRunner().invoke(cli, ["keys", str(tmp_path / "keys"), *options])
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines()]
    assert [str(tmp_path / "keys" / "server.key"), "server", "/etc/wattfed/server.key"] in rows
    assert [str(tmp_path / "keys" / "nodes" / "jetson-0"), "jetson-0", "/etc/wattfed/node"] in rows


def test_a_certificate_without_host_is_told_how_to_be_written(tmp_path):
    done = CliRunner().invoke(cli, ["keys", str(tmp_path), "--certificate", "server"])
    assert isinstance(done.exception, InvalidInput) and "NAME=HOST" in str(done.exception)
