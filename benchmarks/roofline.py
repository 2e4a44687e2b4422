"""How well counts and rooflines explain a measured table, and the energy that they save.

Without any profile: from the counts of the model and the board alone. After the fit: from a few
measured modes, which the predictor asks for; errors are those of the others. Energy: that of the
measured mode which is chosen, against MAXN, with at most 5 % of slow-down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.predict import judge
from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.calibration import errors_pct
from powerctl.cost_model import Signature
from powerctl.errors import InvalidInput
from powerctl.fulcrum.tuning import TuningGoal, tune_mode
from powerctl.measurement import MeasurementTable
from powerctl.modes import IntArray, ModeArrays, PowerMode
from powerctl.pagoda.counted import CountedModel
from powerctl.pagoda.estimate import estimate_from_totals
from powerctl.powertrain.design import DesignedModes
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.reference import load_reference, reference_names
from powerctl.progress import Progress


@dataclass(frozen=True)
class Case:
    """A table, and what is known of it beforehand."""

    table: MeasurementTable
    board: Board
    kind: str
    batch_size: int
    signature: Signature
    references: tuple[str, ...]

    def predictor(self) -> GaussianPredictor:
        """One that knows the counts, and other workloads."""
        return GaussianPredictor(
            self.board.name,
            kind=self.kind,
            batch_size=self.batch_size,
            references=self.references,
            expected=self.signature,
        )

    def of_each_size(self) -> Iterator[Case]:
        """The table's batch sizes one by one."""
        if self.table.batch_size is None:
            yield self
            return
        for size in np.unique(self.table.batch_size).tolist():
            rows = self.table.take(np.flatnonzero(self.table.batch_size == size))
            yield replace(self, table=replace(rows, batch_size=None), batch_size=size)


def fitted_errors(case: Case, n_modes: int, seed: int) -> dict[str, float]:
    """Errors in the modes that were not among the few measured ones."""
    table = case.table
    of_row = [table.modes.mode(row) for row in range(len(table))]
    modes = list(dict.fromkeys(of_row))
    if n_modes >= len(modes):
        raise InvalidInput(f"{table.source} has {len(modes)} modes: give fewer as --modes")
    sizes = [] if table.batch_size is None else np.unique(table.batch_size).tolist()
    design = DesignedModes(
        case.predictor(), ModeArrays.of(modes), n_modes, batch_sizes=sizes, random_state=seed
    )
    done: set[PowerMode] = set()

    def measured() -> IntArray:
        return np.flatnonzero([mode in done for mode in of_row]).astype(np.int64)

    while found := design.choose(table.take(measured()), done):
        done.update(found)
    predictor = case.predictor().fit(table.take(measured()))
    errors = judge(table, measured(), predictor.predict(table.modes, table.batch_size))
    return {f"{name}_fit": errors[name] for name in ("time_mape", "power_mape")}


def energy_saved(case: Case, goal: TuningGoal, profile: int, attempts: int) -> dict[str, float]:
    """What tuning saves, and what the best possible choice would."""
    table = case.table
    facts = {table.modes.mode(row): table[row] for row in range(len(table))}
    maxn = PowerMode(*(int(axis.max()) for axis in table.modes))
    if maxn not in facts:
        raise InvalidInput(f"{table.source}: MAXN ({maxn}) was not measured, to compare with")
    found = tune_mode(
        case.predictor(),
        table.modes,
        maxn,
        facts.__getitem__,
        goal,
        profile=profile,
        attempts=attempts,
    )
    best = goal.best(table.time_s, table.power_w, facts[maxn].time_s)
    assert best is not None  # MAXN is no slower than itself
    return {
        "energy_saved_pct": 100 * found.energy_saved,
        "slowdown_pct": 100 * found.slowdown,
        "energy_possible_pct": 100 * (1 - table[best].energy_j / facts[maxn].energy_j),
        "modes_measured": len(found.measured),
    }


def evaluate(case: Case, n_modes: int, profile: int, attempts: int, seed: int) -> dict[str, Any]:
    """All figures of a table; energies are means over its batch sizes."""
    without = errors_pct(case.board.hardware, case.signature, case.table, case.batch_size)
    row: dict[str, Any] = dict(
        zip(("time_mape_no_profile", "power_mape_no_profile"), without, strict=True)
    )
    row |= fitted_errors(case, n_modes, seed)
    saved = [energy_saved(each, TuningGoal(), profile, attempts) for each in case.of_each_size()]
    row |= {name: float(np.mean([one[name] for one in saved])) for name in saved[0]}
    if len(saved) > 1:
        sizes = [str(each.batch_size) for each in case.of_each_size()]
        row["batches"] = dict(zip(sizes, saved, strict=True))
    return row


def others_than(workload: str | None) -> tuple[str, ...]:
    """References that ship, without those of the same network."""
    return tuple(
        name
        for name in reference_names()
        if workload is None or workload not in load_reference(name).name
    )


_COLUMNS = {
    "time_mape_no_profile": "time %, no profile",
    "power_mape_no_profile": "power %",
    "time_mape_fit": "time %, fit",
    "power_mape_fit": "power %",
    "energy_saved_pct": "energy saved %",
    "energy_possible_pct": "possible %",
    "slowdown_pct": "slower %",
    "modes_measured": "modes",
}


@click.command(help=__doc__)
@click.option("--board", default="orin-agx", show_default=True, help="Board of the table.")
@click.option("--table", "path", required=True, help="Measured table.")
@click.option("--workload", help="Model that is counted: resnet18, lstm, torchvision:NAME, ...")
@click.option("--flop-per-sample", type=float, help="Instead of a model: of inference.")
@click.option("--weight-bytes", type=float, help="Bytes of a minibatch whatever its size.")
@click.option("--bytes-per-sample", type=float, help="Bytes of a sample, of inference.")
@click.option(
    "--kind",
    type=click.Choice(["train", "infer"]),
    show_default="infer if the table has batch sizes",
    help="What was measured.",
)
@click.option("--batch", type=int, help="Batch size; of a table with several, only this one.")
@click.option("--modes", default=50, show_default=True, help="Measured for the fit.")
@click.option("--profile", default=20, show_default=True, help="Measured before tuning.")
@click.option("--attempts", default=20, show_default=True, help="Candidates measured in tuning.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the figures as JSON.")
def main(
    board: str,
    path: str,
    workload: str | None,
    flop_per_sample: float | None,
    weight_bytes: float | None,
    bytes_per_sample: float | None,
    kind: str | None,
    batch: int | None,
    modes: int,
    profile: int,
    attempts: int,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    home = load_board(board)
    table = MeasurementTable.read(path)
    kind = kind or ("train" if table.batch_size is None else "infer")
    if batch is not None and table.batch_size is not None:
        table = table.take(np.flatnonzero(table.batch_size == batch))
        table = replace(table, batch_size=None)
        if not len(table):
            raise InvalidInput(f"{path} has no batch size {batch}")
    if workload is not None:
        signature = CountedModel.of(workload, None, kind).signature
    elif flop_per_sample is None or weight_bytes is None or bytes_per_sample is None:
        raise click.UsageError(
            "give --workload, or --flop-per-sample, --weight-bytes and --bytes-per-sample"
        )
    else:
        signature = estimate_from_totals(kind, flop_per_sample, weight_bytes, bytes_per_sample)
    case = Case(table, home, kind, batch or 16, signature, others_than(workload))
    with Progress("fits"):
        row = evaluate(case, modes, profile, attempts, seed)
    console.print_table(list(_COLUMNS.values()), [[row[name] for name in _COLUMNS]])
    click.echo(
        f"errors over the modes of {Path(path).name} ({kind}); the fit is of {modes} modes; "
        "energy against MAXN, at most 5 % slower"
    )
    if json_path:
        Path(json_path).write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
