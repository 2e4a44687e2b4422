"""Which code runs here: so that a server notices a node that runs another checkout.

Ray's workers import the ClientApp from the folder in which a SuperLink was started in preference
to the app that was sent; a stale SuperLink of another checkout would silently train other code.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from powerctl.errors import InvalidInput

CODE = "code"  # the key under which a server tells its own
_ROOT = Path(__file__).resolve().parents[1]


@lru_cache(maxsize=1)
def code_version() -> str:
    """A short hash of the modules that server and clients share."""
    digest = hashlib.sha256()
    for package in ("client", "powerctl", "strategies"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def check_code_version(wanted: str) -> None:
    """Raise `InvalidInput` if a server runs other code than this process."""
    if wanted != code_version():
        raise InvalidInput(
            f"this node runs wattfed {code_version()} from {_ROOT}, the server runs {wanted}: "
            "stop the SuperLink and start it in the folder of the app"
        )


def check_agent_code(wanted: str) -> None:
    """Raise `InvalidInput` if a ClientApp runs other code than this process, its agent."""
    if wanted != code_version():
        raise InvalidInput(
            f"the agent runs wattfed {code_version()} from {_ROOT}, the ClientApp "
            f"{wanted or 'an older one'}: install the app's code there and restart the agent"
        )
