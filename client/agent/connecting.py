"""How the agent's own commands reach it: the Unix socket, or TCP with TLS and a token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from powerctl.errors import DeviceUnavailable, InvalidInput, Refused
from powerctl.reading import read_bytes, read_text

# what gRPC says where nobody can be asked, and what that means
_UNREACHED = {
    "Hostname Verification": "its certificate is of another name: reach it by one that it was made "
    "for, or make it anew: wattfed keys --certificate NAME=HOST",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of an authority trusted here: give --ca, "
    "the ca.crt of its wattfed keys",
    "WRONG_VERSION_NUMBER": "what answers speaks no TLS; is it the agent's --listen?",
    "security handshaker": "--ca is no file of PEM certificates",
    "errors resolving": "no host of that name; write --address HOST:PORT",
    "Permission denied": "its socket is another user's: run this as the agent's user",
    "failed to connect": "no agent answers there; start one: wattfed-agent serve",
}


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
        if code is grpc.StatusCode.UNAVAILABLE:
            for words, meaning in _UNREACHED.items():
                if words in details:
                    raise DeviceUnavailable(f"{address or socket}: {meaning}") from None
        raise Refused(f"{code.name}: {details}") from None


def _credentials(ca_file: str, token_file: str) -> grpc.ChannelCredentials:
    if not token_file:
        raise InvalidInput("TCP needs a token: --token-file")
    roots = read_bytes(ca_file) if ca_file else None
    tokens = read_text(token_file).split()
    if not (tokens and tokens[0].isascii()):
        raise InvalidInput(f"{token_file}: no token in it; it is a line of the agent's token file")
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(roots), grpc.access_token_call_credentials(tokens[0])
    )
