"""Serves the page on a run, its numbers as JSON, and text for Prometheus: to read, and no more."""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

from powerctl.errors import InvalidInput, PowerctlError
from wattfed.server.live.page import render_page, render_view, script_hash
from wattfed.server.live.prometheus import CONTENT_TYPE, render_metrics
from wattfed.server.live.run import LiveRun
from wattfed.server.live.snapshot import Snapshot, run_state

_HTML, _JSON, _TEXT = (
    f"{kind}; charset=utf-8" for kind in ("text/html", "application/json", "text/plain")
)
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src '{script_hash()}'; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_METHOD_NOT_ALLOWED, _MISDIRECTED, _UNAVAILABLE = 405, 421, 503


def _state(now: Snapshot) -> str:
    values = {"version": now.version, "state": run_state(now), "finished": now.is_finished}
    return json.dumps(values)


_PATHS: dict[str, tuple[str, Callable[[Snapshot], str | bytes]]] = {
    "/": (_HTML, render_page),
    "/view": (_HTML, render_view),
    "/state.json": (_JSON, _state),
    "/run.json": (_JSON, lambda now: json.dumps(now.record())),
    "/metrics": (CONTENT_TYPE, render_metrics),
}


class WatchServer(ThreadingMixIn, TCPServer):
    """Answers GET on five paths, none of which names a file.

    A request must call the server by an address, ``localhost`` or the name it was given: another
    name is that of a web page which had its own name resolved to this address (DNS rebinding).

    Parameters
    ----------
    run : LiveRun
        What is shown.
    host : str
        Name or address to listen at.
    port : int
        0 takes one that is free.

    Raises
    ------
    InvalidInput
        If it cannot listen there.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, run: LiveRun, host: str, port: int) -> None:
        self._run = run
        self._host = host
        self._lock = threading.Lock()
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family, address = found[0][0], found[0][4]
            super().__init__((str(address[0]), int(address[1])), _Handler)
        except OSError as error:
            raise InvalidInput(
                f"cannot listen at {host}, port {port}: {error.strerror}; try --port 0"
            ) from None

    @property
    def url(self) -> str:
        """The address of its page, as a browser takes it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.server_address[1]}/"

    @property
    def is_public(self) -> bool:
        """Whether other hosts may reach it."""
        return not ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Content type and body for a path; None if there is nothing."""
        if path not in _PATHS:
            return None
        kind, render = _PATHS[path]
        with self._lock:  # what is shown is followed as it is read
            body = render(self._run.look())
        return kind, body.encode() if isinstance(body, str) else body

    def is_called(self, host: str) -> bool:
        """Whether a request's Host names this server."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in ("localhost", self._host.lower()):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who breaks off a request is no news."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, by what the server says of its path."""

    server: WatchServer
    server_version, sys_version = "wattfed", ""
    default_request_version = "HTTP/1.0"  # so that who sends no version gets a status line too
    timeout = 10  # seconds that a caller may take for its request

    def do_GET(self) -> None:
        """Answer, or say why not."""
        if not self.server.is_called(self.headers.get("Host", "")):
            return self.send_error(_MISDIRECTED, explain="call it by its address, or --host")
        try:
            answer = self.server.answer(self.path.partition("?")[0])
        except PowerctlError as error:
            return self.send_error(_UNAVAILABLE, explain=str(error))
        if answer is None:
            return self.send_error(404, explain=f"there is {', '.join(_PATHS)}")
        return self._send(200, *answer)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse in plain text; what the base class calls not implemented is not allowed here."""
        code = {501: _METHOD_NOT_ALLOWED, 505: 400}.get(int(code), int(code))
        self.close_connection = True
        self._send(code, _TEXT, (explain or message or self.responses[code][0]).encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if code == _METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A page that asks every second would fill the terminal."""
