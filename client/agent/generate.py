"""Generate the agent's gRPC code from its `agent.proto`.

Run as ``python -m wattfed.client.agent.generate``.

The generated code is committed, so that installing needs no compiler. It must not be newer than
the protobuf and grpcio that the oldest supported Flower allows (1.30: protobuf 5.28, grpcio 1.70),
and older is accepted for one major version: so it is made with the last grpcio-tools that writes
protobuf 5.27, in an environment of its own:

    python3.11 -m venv /tmp/proto
    /tmp/proto/bin/pip install grpcio-tools==1.67.1 setuptools
    /tmp/proto/bin/python -m wattfed.client.agent.generate
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

_PROTO = "wattfed/client/agent/proto/agent.proto"
_TOOLS = "1.67.1"


def main() -> None:
    """Generate, from the root of the repository."""
    try:
        found = metadata.version("grpcio-tools")
    except metadata.PackageNotFoundError:
        found = "none"
    if found != _TOOLS:
        sys.exit(f"needs grpcio-tools {_TOOLS}, here is {found}; see the docstring of {__file__}")
    if not Path(_PROTO).exists():
        sys.exit(f"no {_PROTO} here: run it from the root of the repository")
    from grpc_tools import protoc

    sys.exit(
        protoc.main(
            ["protoc", "-I.", "--python_out=.", "--pyi_out=.", "--grpc_python_out=.", _PROTO]
        )
    )


if __name__ == "__main__":
    main()
