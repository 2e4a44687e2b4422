"""What a client has spent and learned, and its file, which outlives process and Flower's run."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import Amount, Measured, Range, build
from powerctl.reading import NoFile, read_json
from wattfed.strategies.protocol import Loss

_NEEDED = {"spent_j", "loss", "predictor"}  # older files do not have the others
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
    peak_bytes : int
        Memory that its process held at the peak of the last round; 0 before one was measured.
    halvings : int
        How often its minibatches were halved for want of memory.
    under_way : str
        The round that an agent trains now, or was killed in; empty between rounds.
    oom_kills : int
        What `powerctl.task.process_memory.oom_kills` said when that began.
    is_warm : bool
        Whether its process has run a minibatch, where an agent is simulated that keeps it.
    warm_up_s : float
        What the last first minibatch in a process took beyond another; 0 before one was measured.
    celsius, celsius_s : float
        Simulated temperature after the last training, and when; NaN where nothing heats up.
    """

    spent_j: Amount = 0.0
    loss: Loss = math.nan
    predictor: tuple[float, float, float] = (0.0, 0.0, 0.0)
    battery_j: Annotated[float, Range(0, 1e20, unbounded=True, unknown=True)] = math.nan
    battery_s: Measured = math.nan
    label_counts: tuple[float, ...] = ()
    peak_bytes: Annotated[int, Range(0, 2**63)] = 0
    halvings: Annotated[int, Range(0, 64)] = 0
    under_way: str = ""
    oom_kills: int = -1
    is_warm: bool = False
    warm_up_s: Annotated[float, Range(0, 1e9)] = 0.0
    celsius: Annotated[float, Range(-300, 1e6, unknown=True)] = math.nan
    celsius_s: Measured = math.nan


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
            values = read_json(self.path)
            if not isinstance(values, dict) or not values.keys() >= _NEEDED:
                raise InvalidInput(f"{self.path}: no client's state, or damaged; remove it")
            state = build(ClientState, values, f"{self.path}: damaged; remove it", ("source",))
        except NoFile:
            return ClientState()
        is_learned = values.get("source", "") == self.source
        predictor = state.predictor if is_learned else ClientState.predictor
        return replace(state, predictor=predictor, battery_j=math.nan, battery_s=math.nan)

    def write(self, state: ClientState) -> bool:
        """Replace the file; whether that could be done, as a disc may be full (it is logged)."""
        values = {**asdict(state), "source": self.source}
        try:
            replace_file(self.path, json.dumps(values).encode() + b"\n")
        except OSError as error:
            _LOG.error("%s: %s; what it has spent is kept in memory", self.path, error.strerror)
            return False
        return True
