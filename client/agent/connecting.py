"""How the agent's own commands reach it: the Unix socket, or TCP with TLS and a token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from powerctl.errors import DeviceUnavailable, InvalidInput, Refused
from powerctl.reading import read_bytes, read_text

_TLS = re.compile(r"certificate|handshake|hostname verification", re.IGNORECASE)


@contextmanager
def connect(
    socket: str, address: str = "", ca_file: str = "", token_file: str = ""
) -> Iterator[grpc.Channel]:
    """A channel to an agent; what it answers with becomes an error of one line.

    Parameters
    ----------
    socket : str
        Of an agent on this machine.
    address : str
        ``HOST:PORT`` of one elsewhere, in its place.
    ca_file, token_file : str
        For TCP: PEM certificates to trust (by default the system's), and the bearer token.
    """
    # no limits of our own: those of the agent's settings hold
    options = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
    if address:
        channel = grpc.secure_channel(address, _credentials(ca_file, token_file), options)
    else:
        channel = grpc.insecure_channel(f"unix:{socket}", options)
    try:
        with channel:
            yield channel
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        if code is grpc.StatusCode.UNAVAILABLE and _TLS.search(details):
            raise DeviceUnavailable(
                f"{address}: its certificate is of another name, or not of the authority in --ca: "
                "give the name that it was made for (wattfed keys --certificate NAME=HOST)"
            ) from None
        if code is grpc.StatusCode.UNAVAILABLE and "failed to connect" in details:
            raise DeviceUnavailable(
                f"no agent answers at {address or socket}; start one: wattfed-agent serve"
            ) from None
        raise Refused(f"{code.name}: {details}") from None


def _credentials(ca_file: str, token_file: str) -> grpc.ChannelCredentials:
    if not token_file:
        raise InvalidInput("TCP needs a token: --token-file")
    roots = read_bytes(ca_file) if ca_file else None
    token = next(iter(read_text(token_file).split()), "")
    if not (token.isascii() and token):
        raise InvalidInput(f"{token_file}: no token, which is text in ASCII")
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(roots), grpc.access_token_call_credentials(token)
    )
