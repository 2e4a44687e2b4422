"""Certificates and node keys of a federation: one authority, servers that it signs, node keys.

The folder is the server's secret: copy from it, to each host, only what that host needs.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from powerctl.durable import replace_file, sync_folder
from powerctl.errors import InvalidInput
from powerctl.fields import check_name
from powerctl.reading import misread, read_bytes

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 825  # the longest that common TLS clients accept
_LOOPBACK = ("localhost", "127.0.0.1")
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Keys:
    """A folder of ``ca.crt``, ``ca.key``, ``NAME.crt``, ``NAME.key``, and ``nodes/NAME[.pub]``.

    What is there already is kept: a second call adds to it. Secret files are readable by their
    owner alone, and are never overwritten.

    Parameters
    ----------
    folder : Path
        Created if need be.

    Raises
    ------
    InvalidInput
        If the folder cannot be written, or the authority in it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            (folder / "nodes").mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise InvalidInput(f"cannot write keys to {folder}: {error.strerror}") from None
        if self.authority.exists() != (folder / "ca.key").exists():
            raise InvalidInput(f"{folder}: ca.crt and ca.key belong together; one is missing")
        if not self.authority.exists():
            self._make_authority()

    @property
    def authority(self) -> Path:
        """The certificate that clients are given to know the server by."""
        return self.folder / "ca.crt"

    def certificate(self, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key of a server that is reached by some host names or addresses.

        It is for loopback too, over which Flower's own processes on the server reach it. A
        certificate that is there is replaced if it names other hosts or ends within a month; its
        key is kept.
        """
        certificate, key_path = self._named(name, ".crt"), self._named(name, ".key")
        if name == "ca" or not hosts:
            raise InvalidInput("a server's certificate needs a name other than ca, and a host")
        reached = dict.fromkeys((*hosts, *_LOOPBACK))
        alternatives = x509.SubjectAlternativeName([_host(host) for host in reached])
        if certificate.exists() and key_path.exists() and _serves(certificate, alternatives):
            return certificate, key_path
        key = _read_key(key_path) if key_path.exists() else ec.generate_private_key(ec.SECP256R1())
        authority = _read_certificate(self.authority)
        signed = (
            _certificate(_name(hosts[0]), authority.subject, key, _SERVER_DAYS)
            .add_extension(alternatives, critical=False)
            .add_extension(_identifier_of(authority), critical=False)
            .sign(_read_key(self.folder / "ca.key"), hashes.SHA256())
        )
        if not key_path.exists():
            _write_secret(key_path, _secret(key, serialization.PrivateFormat.PKCS8))
        replace_file(certificate, signed.public_bytes(serialization.Encoding.PEM))
        return certificate, key_path

    def node(self, name: str) -> tuple[Path, Path]:
        """Private and public key of a SuperNode as Flower wants them: NIST P-384, OpenSSH's format.

        Once registered, a key stands for the node over restarts, so that it is made once.
        """
        private, public = self._named(f"nodes/{name}", ""), self._named(f"nodes/{name}", ".pub")
        if not (private.exists() and public.exists()):
            key = ec.generate_private_key(ec.SECP384R1())
            _write_secret(private, _secret(key, serialization.PrivateFormat.OpenSSH))
            openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            replace_file(public, key.public_key().public_bytes(*openssh))
        return private, public

    def _named(self, name: str, suffix: str) -> Path:
        check_name(name.removeprefix("nodes/"), "the name")
        return self.folder / f"{name}{suffix}"

    def _make_authority(self) -> None:
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("wattfed authority")
        certificate = (
            _certificate(name, name, key, _AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_secret(self.folder / "ca.key", _secret(key, serialization.PrivateFormat.PKCS8))
        replace_file(self.authority, certificate.public_bytes(serialization.Encoding.PEM))


def _identifier_of(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Python 3.13 on takes no certificate without it."""
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _serves(path: Path, hosts: x509.SubjectAlternativeName) -> bool:
    """Whether a certificate is for these hosts, for another month at least."""
    certificate = _read_certificate(path)
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    month = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=30)
    return set(present) == set(hosts) and certificate.not_valid_after_utc > month


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # clients' clocks may be behind
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _secret(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _read_certificate(path: Path) -> x509.Certificate:
    with misread(f"cannot read the certificate {path}"):
        return x509.load_pem_x509_certificate(read_bytes(path))


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    with misread(f"cannot read the key {path}"):
        key = serialization.load_pem_private_key(read_bytes(path), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"{path} is no elliptic-curve key")
    return key


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read from its first byte on, and that is new."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path)
    except FileExistsError:
        raise InvalidInput(f"{path} exists without the file that belongs to it") from None
