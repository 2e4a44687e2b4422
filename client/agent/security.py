"""Who may call over TCP: TLS, and a bearer token."""

from __future__ import annotations

import hmac
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from powerctl.errors import InvalidInput
from powerctl.reading import read_bytes, read_text

_SCHEME = "bearer "
_SHORTEST_TOKEN = 16  # characters: 64 bits, if they are random hexadecimal digits


class TokenCheck(grpc.aio.ServerInterceptor):
    """Lets calls through that bring one of the tokens as ``authorization: Bearer ...``."""

    def __init__(self, tokens: tuple[str, ...]) -> None:
        self._tokens = [token.encode() for token in tokens]

        async def refuse(request: Any, context: grpc.aio.ServicerContext) -> None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "a bearer token of the agent's token file is needed: authorization: Bearer ...",
            )

        # One kind of handler refuses all: the client sees its status before it reads a message.
        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """Hand the call on, or refuse it."""
        values = dict(handler_call_details.invocation_metadata)
        return await continuation(handler_call_details) if self._known(values) else self._refusal

    def _known(self, metadata: dict[str, str]) -> bool:
        value = metadata.get("authorization", "")
        if not value.lower().startswith(_SCHEME):
            return False
        given = value[len(_SCHEME) :].strip().encode()
        # every token is compared, so that the time taken does not tell which one was near
        return sum(hmac.compare_digest(given, token) for token in self._tokens) > 0


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens of a file, one a line; lines that begin with # are comments.

    Raises
    ------
    InvalidInput
        If it cannot be read, others may read it, or it has no token of 16 characters.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    if path.stat().st_mode & 0o077:
        raise InvalidInput(f"token file {path} can be read by others: chmod 600 {path}")
    tokens = tuple(line for line in lines if line and not line.startswith("#"))
    if not tokens or min(map(len, tokens)) < _SHORTEST_TOKEN:
        raise InvalidInput(
            f"token file {path} needs tokens of at least {_SHORTEST_TOKEN} characters, one a "
            f"line; make one: openssl rand -hex 32 > {path}"
        )
    return tokens


def read_tls(certificate: Path, key: Path) -> grpc.ServerCredentials:
    """The server's certificate chain and key, as PEM files; raises `InvalidInput` for others."""
    pair = (read_bytes(key), read_bytes(certificate))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise InvalidInput(
            f"TLS: {certificate} and {key} are no certificate and its key ({error.reason}); make "
            "both: wattfed keys FOLDER --certificate NAME=HOST"
        ) from None
    return grpc.ssl_server_credentials([pair])
