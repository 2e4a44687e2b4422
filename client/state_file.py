"""What a client has spent and learned, on disc: it outlives the process and Flower's run."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from wattfed.client.local import ClientState

_LOG = logging.getLogger("wattfed.client")


@dataclass(frozen=True)
class StateFile:
    """The file of one client in one federation.

    Parameters
    ----------
    path : Path
        Of the file.
    source : str
        What the client's predictor is from; a state of another source keeps nothing learned.
    """

    path: Path
    source: str = ""

    @classmethod
    def of(cls, folder: Path, run: str, client: int, source: str = "") -> StateFile:
        """The file in a folder, which is made; `run` names the federation, whatever is in it."""
        folder.mkdir(parents=True, exist_ok=True)
        name = "".join(c if c.isalnum() or c in "-_" else "_" for c in run)[:64] or "run"
        return cls(folder / f"{name}-{client}.json", source)

    def read(self) -> ClientState:
        """The state; a fresh one if there is no file. Raises `InvalidInput` if it is damaged."""
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            state = ClientState(values["spent_j"], values["loss"])
            state.label_counts = tuple(values.get("label_counts", ()))
            if values.get("source", "") == self.source:
                state.predictor = tuple(values["predictor"])
            return state
        except FileNotFoundError:
            return ClientState()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInput(
                f"{self.path}: no client's state, or damaged: {error}; remove it"
            ) from None

    def write(self, state: ClientState) -> bool:
        """Replace the file; whether that could be done, as a disc may be full (it is logged)."""
        values = {**asdict(state), "source": self.source}
        try:
            replace_file(self.path, json.dumps(values).encode() + b"\n")
        except OSError as error:
            _LOG.error("%s: %s; what it has spent is kept in memory", self.path, error.strerror)
            return False
        return True
