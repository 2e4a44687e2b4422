"""What a client has spent and learned, and its file, which outlives process and Flower's run."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import Amount, Range, build
from powerctl.reading import NoFile, read_json

_LOG = logging.getLogger("wattfed.client")


@dataclass
class ClientState:
    """What a client keeps between rounds.

    Attributes
    ----------
    spent_j : float
        Training energy so far.
    loss : float
        Last training loss.
    predictor : tuple of float
        What the predictor has learned of this unit.
    battery_j, battery_s : float
        What was in the battery after the last training, and when on the fleet's clock (midnight of
        the first day is 0); NaN before the first.
    label_counts : tuple of float
        What it has told of its labels, with noise: the same in all rounds, so that the noise cannot
        be averaged away. Empty before, and where nothing must be kept.
    """

    spent_j: float = 0.0
    loss: float = math.nan
    predictor: tuple[float, float, float] = (0.0, 0.0, 0.0)
    battery_j: float = math.nan
    battery_s: float = math.nan
    label_counts: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Kept:
    """What of a file is taken up again; the battery's charge is not."""

    spent_j: Amount
    loss: Annotated[float, Range(-1e39, 1e39, unknown=True)]
    predictor: tuple[float, float, float]
    source: str = ""
    label_counts: tuple[float, ...] = ()


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
            kept = build(_Kept, read_json(self.path), "no client's state, or damaged", ignored=None)
        except NoFile:
            return ClientState()
        except InvalidInput as error:
            raise InvalidInput(f"{self.path}: {error}; remove it") from None
        state = ClientState(kept.spent_j, kept.loss, label_counts=kept.label_counts)
        if kept.source == self.source:
            state.predictor = kept.predictor
        return state

    def write(self, state: ClientState) -> bool:
        """Replace the file; whether that could be done, as a disc may be full (it is logged)."""
        values = {**asdict(state), "source": self.source}
        try:
            replace_file(self.path, json.dumps(values).encode() + b"\n")
        except OSError as error:
            _LOG.error("%s: %s; what it has spent is kept in memory", self.path, error.strerror)
            return False
        return True
