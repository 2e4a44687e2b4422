"""Where a SuperLink listens: one port since Flower 1.37; before, one for each of its APIs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import random
import socket
from dataclasses import dataclass
from typing import Protocol

ONE_PORT_SINCE = (1, 37)
_PORTS = (20_000, 32_768)  # Linux gives those above


class FlowerPorts(Protocol):
    """Addresses of a SuperLink, and the options with which Flower's commands take them."""

    @property
    def fleet(self) -> str:
        """``HOST:PORT`` that SuperNodes connect to."""
        ...

    @property
    def control(self) -> str:
        """``HOST:PORT`` that the ``flwr`` command connects to."""
        ...

    @property
    def superlink_options(self) -> tuple[str, ...]:
        """Of ``flower-superlink``: where to listen."""
        ...

    def supernode_options(self) -> tuple[str, ...]:
        """Of ``flower-supernode``: a free port for its own ClientApps."""
        ...


@dataclass(frozen=True)
class OnePort:
    """One HTTP port for everything."""

    host: str
    port: int

    @property
    def fleet(self) -> str:
        """The one address."""
        return f"{self.host}:{self.port}"

    control = fleet

    @property
    def superlink_options(self) -> tuple[str, ...]:
        """Host and port."""
        return ("--host", self.host, "--port", str(self.port))

    def supernode_options(self) -> tuple[str, ...]:
        """Host and a free port."""
        return ("--host", self.host, "--port", str(free_port()))


@dataclass(frozen=True)
class PortPerApi:
    """A gRPC port for each of SuperNodes, the ``flwr`` command, and ServerApps."""

    fleet: str
    control: str
    server_app: str

    @property
    def superlink_options(self) -> tuple[str, ...]:
        """The three addresses."""
        addresses = ("--fleet-api-address", self.fleet, "--control-api-address", self.control)
        return (*addresses, "--serverappio-api-address", self.server_app)

    def supernode_options(self) -> tuple[str, ...]:
        """A free address."""
        host = self.fleet.rpartition(":")[0]
        return ("--clientappio-api-address", f"{host}:{free_port()}")


def flower_ports(host: str) -> FlowerPorts:
    """Free ports of a host for a SuperLink of the installed Flower."""
    if flower_version() >= ONE_PORT_SINCE:
        return OnePort(host, free_port())
    return PortPerApi(*(f"{host}:{free_port()}" for _ in range(3)))


def flower_version() -> tuple[int, int]:
    """Major and minor version of the Flower that is installed."""
    major, minor, *_ = importlib.metadata.version("flwr").split(".")
    return int(major), int(minor)


def free_port() -> int:
    """A port of loopback that nobody listens on just now.

    None of those that the system gives to whoever connects: one could be taken before who it is for
    has started, or while it starts again.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
