"""A TCP proxy of the tests' own: a link that can be slow, and can be cut and joined again."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_CHUNK = 16 << 10


class Proxy:
    """Forwards connections to an address, both ways.

    While it is cut nothing passes and nothing is refused, as with a cable that is pulled.

    Parameters
    ----------
    target : str
        ``HOST:PORT``.
    bytes_per_s : float
        Of each direction of each connection.
    host : str
        Where it listens.

    Attributes
    ----------
    has_held : bool
        Whether it has kept something from passing since it was cut.
    """

    def __init__(
        self, target: str, bytes_per_s: float = float("inf"), host: str = "127.0.0.1"
    ) -> None:
        name, _, port = target.rpartition(":")
        self._target = name, int(port)
        self._bytes_per_s = bytes_per_s
        self.has_held = False
        self._joined = threading.Event()
        self._joined.set()
        self._listener = socket.create_server((host, 0))
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self.has_held = False
        self._joined.clear()

    def join(self) -> None:
        """Let what waits pass, and all that follows."""
        self._joined.set()

    def close(self) -> None:
        """End all connections."""
        self._joined.set()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _await_joined(self) -> None:
        self.has_held |= not self._joined.is_set()
        self._joined.wait()

    def _connect(self, near: socket.socket) -> None:
        self._await_joined()
        with contextlib.suppress(OSError):
            far = socket.create_connection(self._target)
            self._sockets += (near, far)
            threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
            self._pump(far, near)
            return
        near.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._await_joined()
                time.sleep(len(data) / self._bytes_per_s)  # the link's speed, no waiting for events
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
            return
        for each in (source, sink):
            each.close()
