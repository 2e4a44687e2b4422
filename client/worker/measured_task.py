"""What a device has measured of a task: a table on disc, and what it predicts of every mode.

Each measurement is held against what those before it let expect. One that is off by more than they
explain may be a mode that stands out, or work that has changed (other data, another version of a
library): it is kept aside until the next one decides.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from powerctl.boards import Board
from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import Amount, Positive, Range, Size, build
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import FloatArray, ModeArrays, ModeSpace, PowerMode
from powerctl.powertrain.correction import CorrectedPredictor
from powerctl.powertrain.prediction import Prediction
from powerctl.reading import DATA, NoFile, parse_arrays, parse_json, read_bytes
from powerctl.workload import Workload

if TYPE_CHECKING:
    from powerctl.powertrain.gaussian import GaussianPredictor

_LOG = logging.getLogger("wattfed.client")
_JUDGE_FROM = 3  # rows; fewer do not say what is to be expected
_SURPRISE = 4.0  # standard deviations of the logarithm of time: of normal ones 1 in 16,000
_MOST_WEIGHT = 400  # minibatches that a mean counts for: what is new must be able to move it
_FIT = 2  # another one whenever predictors change what they make of a table
_Axis = Annotated[int, Range(1, 1e12)]


@dataclass(frozen=True)
class MeasuredRow:
    """The mean seconds and watts of a minibatch in a mode.

    Attributes
    ----------
    mode : tuple of int
        Values of a `PowerMode`.
    minibatches : int
        That it is the mean of.
    origin : {"idle", "round"}
        Whether it was measured for its own sake, or is what a round took.
    at_s : float
        When, in seconds of `time.time`.
    """

    mode: tuple[_Axis, _Axis, _Axis, _Axis]
    time_s: Positive
    power_w: Positive
    minibatches: Size
    origin: Literal["idle", "round"]
    at_s: Amount


@dataclass(frozen=True)
class SetAside:
    """Rows of work as it was before it changed.

    Attributes
    ----------
    rows : tuple of MeasuredRow
    at_s : float
        When that was noticed.
    factor : float
        Of the times that have come since.
    """

    rows: tuple[MeasuredRow, ...]
    at_s: Amount
    factor: Positive


@dataclass(frozen=True)
class TaskTable:
    """The content of the file of one task on one board.

    Attributes
    ----------
    board, workload : str
        Whose it is.
    rows : tuple of MeasuredRow
        One a mode.
    suspect : MeasuredRow or None
        The last one, if it was off: the next one decides what becomes of it.
    surprise : float
        By how many standard deviations of the logarithm of time it was off.
    aside : SetAside or None
        What was measured before the work changed last.
    spent_s, spent_j : float
        What measuring in idle time has taken so far.
    """

    board: str
    workload: str
    rows: tuple[MeasuredRow, ...] = ()
    suspect: MeasuredRow | None = None
    surprise: float = 0.0
    aside: SetAside | None = None
    spent_s: Amount = 0.0
    spent_j: Amount = 0.0

    def table(self) -> MeasurementTable:
        """The rows as a table, which predictors learn from."""
        facts = [Measurement(PowerMode(*r.mode), r.time_s, r.power_w) for r in self.rows]
        return MeasurementTable.of(facts, self.workload)

    def with_row(self, row: MeasuredRow) -> TaskTable:
        """With one more row, or the mean of it and an older one of its mode."""
        same = [old for old in self.rows if old.mode == row.mode]
        rows = [old for old in self.rows if old.mode != row.mode]
        return replace(self, rows=(*rows, _mean(same[0], row) if same else row))

    def with_judged(self, row: MeasuredRow, surprise: float) -> TaskTable:
        """With one more row, as far as it was expected.

        Parameters
        ----------
        row : MeasuredRow
        surprise : float
            By how many standard deviations the logarithm of its time is off.

        Returns
        -------
        TaskTable
            Two in succession that are off in the same direction mean that the work has changed;
            but a mode that is found so twice, and was not measured before, only stands out.
        """
        is_off, before = abs(surprise) > _SURPRISE, self.suspect
        if is_off and before is not None and surprise * self.surprise > 0:
            is_known = any(old.mode == row.mode for old in self.rows)
            if row.mode != before.mode or is_known:
                return self._changed(row, before)
            is_off = False
        found = self if before is None else self.with_row(before)
        if is_off:
            return replace(found, suspect=row, surprise=surprise)
        return replace(found.with_row(row), suspect=None, surprise=0.0)

    def _changed(self, row: MeasuredRow, suspect: MeasuredRow) -> TaskTable:
        """The rows of the work as it is now; those before are set aside."""
        known = {old.mode: old.time_s for old in self.rows}
        ratios = [new.time_s / known[new.mode] for new in (suspect, row) if new.mode in known]
        factor = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else 1.0
        fresh = TaskTable(self.board, self.workload).with_row(suspect).with_row(row)
        return replace(fresh, aside=SetAside(self.rows, row.at_s, factor))


def _mean(old: MeasuredRow, new: MeasuredRow) -> MeasuredRow:
    before = min(old.minibatches, _MOST_WEIGHT)
    share = new.minibatches / (before + new.minibatches)
    return replace(
        new,
        time_s=old.time_s + share * (new.time_s - old.time_s),
        power_w=old.power_w + share * (new.power_w - old.power_w),
        minibatches=before + new.minibatches,
    )


@dataclass(frozen=True, eq=False)
class SpacePrediction:
    """What is predicted of every mode of a space, looked up."""

    space: ModeSpace
    columns: Prediction

    def of(self, modes: ModeArrays) -> Prediction:
        """What is predicted of some modes of the space."""
        if modes is self.space.arrays:
            return self.columns
        at = self.space.indices(modes)
        if np.any(at < 0):
            self.space.check(modes.mode(int(np.argmin(at))))
        return Prediction(*(column[at] for column in self.columns))


class MeasuredPredictor(CorrectedPredictor):
    """What is predicted from what this very device has measured: it has no factor besides.

    A round teaches it by the rows that it adds to the table.

    Parameters
    ----------
    found : SpacePrediction
    """

    def __init__(self, found: SpacePrediction) -> None:
        super().__init__()
        self.found = found

    @property
    def origin(self) -> tuple[SpacePrediction]:
        """What is predicted of the table; another content has another one."""
        return (self.found,)

    def expected(self, modes: ModeArrays) -> Prediction:
        """What is predicted from the table."""
        return self.found.of(modes)

    def partial_fit(self, mode: PowerMode, time_s: float, power_w: float) -> MeasuredPredictor:
        """Learn nothing beside the table."""
        return self

    def load_state(self, state: tuple[float, float, float]) -> MeasuredPredictor:
        """Have no state, whatever an earlier predictor of the device had."""
        return self

    def corrected(self, expected: Prediction) -> Prediction:
        """What is expected, as it is."""
        return expected


def _as_sure_as_shown(found: Prediction, loo_error: FloatArray) -> Prediction:
    """A prediction that is not much surer than the rows are that it was fitted to.

    A workload unlike all references is off by more than the fit expects, and a few rows hardly tell
    it so. Each row, predicted from all others, does: the mean of that variance and of the expected
    one is the least. It is no more than the mean, as rows lie where least was known. On measured
    tables of a network that no reference is like, 90 % intervals after 20 modes held 46 to 83 % of
    times before, and 89 to 99 % so; on the others 86 to 98 %, and 89 to 98 %.

    Parameters
    ----------
    found : Prediction
    loo_error : FloatArray, shape (2, n_rows)
        Of the logarithms of time and power in each row, from all the others.
    """
    if loo_error.shape[1] < _JUDGE_FROM:
        return found
    shown = (loo_error**2).mean(axis=1)
    stds = [
        np.maximum(std, np.sqrt((std**2 + variance) / 2))
        for std, variance in zip(found[2:], shown, strict=True)
    ]
    return Prediction(found.time_s, found.power_w, *stds)


class MeasuredTask:
    """The file of what a device has measured of a task, and the predictor fitted to it.

    Fitting takes tenths of a second, so it is done when the table changes, and what comes out is
    kept beside it: an offer reads it in a millisecond, also in a process that has just begun.

    Parameters
    ----------
    folder : Path
        Of all such files of a board.
    board : Board
    workload : Workload
        Of the task, named by its code and its batch size; with what was counted of it, if it was.
    """

    def __init__(self, folder: Path, board: Board, workload: Workload) -> None:
        name = "".join(c if c.isalnum() or c in "-_.@" else "_" for c in workload.name)
        self.path = folder / f"{name}.json"
        self.board = board
        self.workload = workload
        self._read: tuple[bytes, TaskTable] | None = None
        self._predictor: tuple[str, MeasuredPredictor] | None = None

    def read(self) -> TaskTable:
        """What is in the file; nothing measured if there is none. Raises `InvalidInput`."""
        try:
            content = read_bytes(self.path, DATA)
        except NoFile:
            return TaskTable(self.board.name, self.workload.name)
        if self._read is None or self._read[0] != content:
            self._read = (content, self._parsed(content))
        return self._read[1]

    def predictor(self) -> MeasuredPredictor | None:
        """What predicts from the rows that there are; None without any."""
        measured = self.read()
        return self._of(measured) if measured.rows else None

    def unfitted(self) -> GaussianPredictor:
        """A predictor of the task that has been shown nothing but what was counted."""
        from powerctl.powertrain.gaussian import GaussianPredictor  # a second, and offers need none

        return GaussianPredictor(
            self.board.name,
            l4t=self.board.l4t,
            kind=self.workload.kind,
            batch_size=self.workload.batch_size,
            expected=self.workload.signature,
        )

    def record(self, rows: Sequence[MeasuredRow]) -> TaskTable:
        """Add rows in the order in which they were measured; what is in the file then.

        Raises
        ------
        InvalidInput
            If the file is damaged, or of another board.
        OSError
            If it cannot be written.
        """
        with self._locked():
            measured = before = self.read()
            for row in rows:
                measured = measured.with_judged(row, self._surprise(measured, row))
            self._write(measured)
        if measured.aside != before.aside and measured.aside is not None:
            _LOG.warning(
                "%s takes %.3g times as long as it was measured: %d modes measured before are set "
                "aside",
                *(self.workload.name, measured.aside.factor, len(measured.aside.rows)),
            )
        self.predictor()
        return measured

    def spend(self, time_s: float, energy_j: float) -> TaskTable:
        """Account for what measuring has taken, whether or not anything came of it."""
        with self._locked():
            before = self.read()
            spent = replace(
                before, spent_s=before.spent_s + time_s, spent_j=before.spent_j + energy_j
            )
            self._write(spent)
            return spent

    def _parsed(self, content: bytes) -> TaskTable:
        where = f"{self.path}: not what a device has measured, or damaged; remove it"
        measured = build(TaskTable, parse_json(content, where), where)
        if (measured.board, measured.workload) != (self.board.name, self.workload.name):
            raise InvalidInput(
                f"{self.path}: measured of {measured.workload} on {measured.board}, not "
                f"{self.workload.name} on {self.board.name}; remove it"
            )
        for row in (*measured.rows, *filter(None, (measured.suspect,))):
            self.board.space.check(PowerMode(*row.mode))
        return measured

    def _write(self, measured: TaskTable) -> None:
        replace_file(self.path, json.dumps(asdict(measured), indent=1).encode() + b"\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from writing between our reading and our writing."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _surprise(self, measured: TaskTable, row: MeasuredRow) -> float:
        if len(measured.rows) < _JUDGE_FROM:
            return 0.0
        modes = ModeArrays.of([PowerMode(*row.mode)])
        expected = self._of(measured).expected(modes)
        off = math.log(row.time_s / float(expected.time_s[0]))
        return off / float(expected.time_std[0])

    def _of(self, measured: TaskTable) -> MeasuredPredictor:
        """The predictor of some rows: the one at hand, the one on disc, or a new one."""
        digest = self._digest(measured)
        if self._predictor is None or self._predictor[0] != digest:
            found = self._kept(digest)
            if found is None:
                found = self._fit(measured)
                self._keep(digest, found)
            prediction = SpacePrediction(self.board.space, found)
            self._predictor = (digest, MeasuredPredictor(prediction))
        return self._predictor[1]

    def _digest(self, measured: TaskTable) -> str:
        """Of all that a fit follows from."""
        signature = self.workload.signature
        rows = [(row.mode, row.time_s, row.power_w) for row in measured.rows]
        space, board = self.board.space.axes, (self.board.name, self.board.l4t)
        counted = None if signature is None else astuple(signature)
        of_what = (_FIT, *board, space, self.workload.batch_size, counted, rows)
        return hashlib.sha256(json.dumps(of_what).encode()).hexdigest()

    def _fit(self, measured: TaskTable) -> Prediction:
        fitted = self.unfitted().fit(measured.table())
        found = fitted.predict(self.board.space.arrays)
        return _as_sure_as_shown(found, fitted.posterior_.loo_error)

    def _keep(self, digest: str, found: Prediction) -> None:
        packed = BytesIO()
        np.savez(packed, digest=np.array(digest), **found._asdict())
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self.path.with_suffix(".npz"), packed.getvalue())
        except OSError as error:  # the next process fits again
            _LOG.warning("%s: the fit is not kept: %s", self.path, error.strerror)

    def _kept(self, digest: str) -> Prediction | None:
        """What was fitted to the same rows; None if there is nothing whole of them."""
        path, shape = self.path.with_suffix(".npz"), self.board.space.arrays.cores.shape
        try:
            arrays = parse_arrays(read_bytes(path, DATA), str(path))
            if str(arrays["digest"]) != digest:
                return None
            found = Prediction(*(arrays[name] for name in Prediction._fields))
        except (InvalidInput, KeyError):
            return None
        usable = all(
            column.shape == shape and bool(np.all(np.isfinite(column) & (column > 0)))
            for column in found
        )
        return found if usable else None
