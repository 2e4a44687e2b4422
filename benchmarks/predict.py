"""How well a predictor knows a workload from a few measured modes.

    python -m benchmarks.predict --target T.csv --reference R.csv --modes 10,20,50 --json OUT

A predictor learns a few modes of the target, with all their batch sizes, and is judged on the
rows of the others: medians over runs of the mean absolute percentage error. With --power-limits it
also chooses the fastest mode under each limit, from what it measured and what it predicts.
Seconds of fits and predictions are those of a core: what else runs does not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import NormalDist
from typing import Any

import click
import numpy as np

from benchmarks.network_predictor import NetworkPredictor
from powerctl import console
from powerctl.boards import Board, load_board
from powerctl.cost_model import Signature
from powerctl.errors import InvalidInput, UnknownName
from powerctl.measurement import MeasurementTable
from powerctl.modes import BoolArray, FloatArray, IntArray, ModeArrays, PowerMode
from powerctl.plugins import OF_OTHERS, names_code, split_names
from powerctl.powertrain.design import DesignedModes
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.prediction import PREDICTORS, Prediction, Predictor
from powerctl.powertrain.reference import Reference
from powerctl.powertrain.reference_fit import build_reference
from powerctl.powertrain.support import screened
from powerctl.progress import Progress

_INTERVAL_90 = NormalDist().inv_cdf(0.95)
MINIBATCHES = 40  # measured in each mode: PowerTrain's protocol


References = Sequence[tuple[MeasurementTable, Board]]
Make = Callable[[int], Predictor]  # from a random state
Ours = Callable[[int], GaussianPredictor]


def _network(target: MeasurementTable, board: Board, references: References, seed: int) -> Make:
    if not references:
        raise InvalidInput("network is transferred: give a --reference, or take network-scratch")
    table, reference_board = references[0]
    started = time.perf_counter()
    pretrained = NetworkPredictor(random_state=seed).fit(table).networks_
    click.echo(f"network pre-trained in {time.perf_counter() - started:.0f} s", err=True)
    loss = "mse" if board.name == reference_board.name else "mape"
    return lambda random_state: NetworkPredictor(pretrained, loss=loss, random_state=random_state)


def _network_scratch(
    target: MeasurementTable, board: Board, references: References, seed: int
) -> Make:
    return lambda random_state: NetworkPredictor(random_state=random_state)


def _gaussian(
    target: MeasurementTable,
    board: Board,
    references: References,
    seed: int,
    expected: Signature | None = None,
) -> Ours:
    built = _built(references)
    return lambda random_state: GaussianPredictor(
        board.name, kind=_kind(target), references=built, expected=expected
    )


def _counted(workload: str | None, kind: str) -> Callable[..., Make]:
    """Ours, which knows the counts of the workload's model too."""
    if workload is None:
        raise InvalidInput("counted knows the model: name it with --workload")
    from powerctl.pagoda.counted import CountedModel

    return partial(_gaussian, expected=CountedModel.of(workload, None, kind).signature)


def _of_others(
    name: str, target: MeasurementTable, board: Board, references: References, seed: int
) -> Make:
    """A predictor of others by its text, which gets what ours gets."""
    built = _built(references)

    def make(random_state: int) -> Predictor:
        return PREDICTORS.make(
            name,
            board=board.name,
            l4t=board.l4t,
            kind=_kind(target),
            references=built,
            random_state=random_state,
        )

    make(seed)  # at once, as for a name
    return make


def _built(references: References) -> list[Reference]:
    return [
        build_reference(table, its_board, name=Path(table.source).stem, kind=_kind(table))
        for table, its_board in references
    ]


_MAKERS = {
    "network": _network,
    "network-scratch": _network_scratch,
    "gaussian": _gaussian,
    "default": _gaussian,
}


def prior_hours(tables: Iterable[MeasurementTable]) -> float:
    """Hours on a board that measuring tables takes, without settling and changes of mode."""
    return MINIBATCHES * sum(float(table.time_s.sum()) for table in tables) / 3600


def _kind(table: MeasurementTable) -> str:
    return "train" if table.batch_size is None else "infer"


def sample_rows(
    target: MeasurementTable, n_modes: int, random_state: int, designer: Ours | None
) -> IntArray:
    """Rows of the modes to measure: random ones, or those that the designer's predictor wants."""
    of_row = [target.modes.mode(row) for row in range(len(target))]
    modes = list(dict.fromkeys(of_row))
    if not 0 < n_modes < len(modes):
        raise InvalidInput(
            f"--modes {n_modes}: {target.source} has {len(modes)} modes, "
            f"so 1 to {len(modes) - 1} can be measured and the others predicted"
        )

    def rows(chosen: set[PowerMode]) -> IntArray:
        return np.flatnonzero([mode in chosen for mode in of_row])

    if designer is None:
        picks = np.random.default_rng(random_state).choice(len(modes), n_modes, replace=False)
        return rows({modes[pick] for pick in picks})
    sizes = [] if target.batch_size is None else np.unique(target.batch_size).tolist()
    design = DesignedModes(
        designer(random_state),
        ModeArrays.of(modes),
        n_modes,
        batch_sizes=sizes,
        random_state=random_state,
    )
    done: set[PowerMode] = set()
    while found := design.choose(target.take(rows(done)), done):
        done.update(found)
    return rows(done)


def judge(
    target: MeasurementTable,
    rows: IntArray,
    prediction: Prediction,
    unsupported: BoolArray | None = None,
) -> dict[str, float]:
    """Errors and coverage on the rows that were not measured; errors also on the supported ones."""
    others = np.setdiff1d(np.arange(len(target)), rows)
    sound = np.ones(len(others), dtype=bool) if unsupported is None else ~unsupported[others]
    found = {}
    for name, true, predicted, std in (
        ("time", target.time_s, prediction.time_s, prediction.time_std),
        ("power", target.power_w, prediction.power_w, prediction.power_std),
    ):
        ratio = predicted[others] / true[others]
        found[f"{name}_mape"] = 100 * float(np.mean(np.abs(ratio - 1)))
        found[f"{name}_mape_screened"] = 100 * float(np.mean(np.abs(ratio[sound] - 1)))
        within = np.abs(np.log(ratio)) <= _INTERVAL_90 * std[others]
        found[f"coverage_{name}"] = float(np.mean(within))
    return found


def choose(
    target: MeasurementTable,
    rows: IntArray,
    prediction: Prediction,
    limits_w: FloatArray,
    deviations: float,
) -> list[tuple[float, float]]:
    """Time penalty in per cent, and watts over the limit, of the choice under each power limit.

    The choice is the fastest per sample of those that are measured, or predicted with so many
    deviations of margin, to keep the limit; if none is, that of the least power. Limits that no
    row of the target keeps are left out.
    """
    samples = 1 if target.batch_size is None else target.batch_size
    true_s = target.time_s / samples
    time_s, power_w = prediction.time_s / samples, prediction.power_bound_w(deviations)
    time_s[rows], power_w[rows] = true_s[rows], target.power_w[rows]
    outcomes = []
    for limit_w in limits_w[limits_w >= target.power_w.min()].tolist():
        best = _fastest_within(true_s, target.power_w, limit_w)
        choice = _fastest_within(time_s, power_w, limit_w)
        penalty_pct = 100 * (true_s[choice] / true_s[best] - 1)
        outcomes.append((float(penalty_pct), float(target.power_w[choice] - limit_w)))
    return outcomes


def _fastest_within(time_s: FloatArray, power_w: FloatArray, limit_w: float) -> int:
    """Index of the fastest row within a limit, then of least power; else the coolest."""
    within = np.flatnonzero(power_w <= limit_w)
    if not len(within):
        return int(power_w.argmin())
    return int(within[np.lexsort((power_w[within], time_s[within]))[0]])


def evaluate(
    make: Make,
    target: MeasurementTable,
    board: Board,
    samples: Sequence[IntArray],
    seed: int,
    limits_w: FloatArray,
    deviations: float,
    shown: Progress,
) -> dict[str, Any]:
    """Medians over the runs, one for each sample of measured rows; progress is of this alone."""
    size = None if target.batch_size is None else int(target.batch_size[0])
    unsupported = screened(target).unsupported
    runs, outcomes = [], []
    for run, rows in enumerate(samples):
        predictor = make(seed + run)
        started = time.process_time()
        predictor.fit(target.take(rows))
        fitted = time.process_time()
        prediction = predictor.predict(target.modes, target.batch_size)
        predicted = time.process_time()
        predictor.predict(board.space.arrays, size)
        seconds = {
            "fit_s": fitted - started,
            "predict_s": predicted - fitted,
            "predict_space_s": time.process_time() - predicted,
        }
        runs.append(judge(target, rows, prediction, unsupported) | seconds)
        outcomes += choose(target, rows, prediction, limits_w, deviations)
        shown.update(run + 1)
        shown.say(
            f"  run {run + 1} of {len(samples)}: time {runs[-1]['time_mape']:.3g} %, "
            f"power {runs[-1]['power_mape']:.3g} %"
        )
    found: dict[str, Any] = {}
    for name in runs[0]:
        q1, median, q3 = np.percentile([r[name] for r in runs], (25, 50, 75)).tolist()
        found[name] = median
        if name.endswith("_mape"):
            found |= {f"{name}_q1": q1, f"{name}_q3": q3}
    found["unsupported_rows"] = int(unsupported.sum())
    if outcomes:
        penalty_pct, over_w = np.array(outcomes).T
        found |= {
            "penalty_median_pct": float(np.median(penalty_pct)),
            "penalty_mean_pct": float(np.mean(penalty_pct)),
            "over_limit_pct": 100 * float(np.mean(over_w > 0)),
            "over_limit_1w_pct": 100 * float(np.mean(over_w > 1)),
        }
    return found


def _read(path: str, board: Board) -> MeasurementTable:
    table = MeasurementTable.read(path)
    outside = int(np.sum(board.space.indices(table.modes) < 0))
    if outside:
        remark = f"{outside} of {len(table)} rows are no modes of {board.name}"
        click.echo(f"{path}: {remark}; is that its board?", err=True)
    return table


def _counts(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInput(f"cannot read {text!r} as counts such as 10,20,50") from None


def _range(text: str) -> FloatArray:
    try:
        start, stop, step = (float(part) for part in text.split(":"))
        if not (start <= stop and step > 0):
            raise ValueError
    except ValueError:
        raise InvalidInput(f"cannot read {text!r} as start:stop:step") from None
    return start + step * np.arange(int((stop - start) / step + 1e-9) + 1, dtype=np.float64)


_COLUMNS = {
    "predictor": "predictor",
    "modes": "modes",
    "time_mape": "time %",
    "power_mape": "power %",
    "time_mape_screened": "time % screened",
    "power_mape_screened": "power % screened",
    "coverage_time": "time in 90 %",
    "coverage_power": "power in 90 %",
    "fit_s": "fit s",
    "predict_space_s": "space s",
    "penalty_median_pct": "penalty %",
    "penalty_mean_pct": "mean penalty %",
    "over_limit_1w_pct": "over by 1 W %",
}


def _print(rows: list[dict[str, Any]]) -> None:
    names = [name for name in _COLUMNS if name in rows[0]]
    header = [_COLUMNS[name] for name in names]
    console.print_table(header, [[row[name] for name in names] for row in rows])


@click.command(help=__doc__)
@click.option("--target", required=True, help="Table to be predicted.")
@click.option("--board", default="orin-agx", show_default=True, help="Board of the target.")
@click.option("--reference", "references", multiple=True, help="Table of another workload.")
@click.option(
    "--reference-board",
    "reference_boards",
    multiple=True,
    default=["orin-agx"],
    show_default=True,
    help="Board of the references: once, or once for each.",
)
@click.option(
    "--predictor",
    default="default",
    show_default=True,
    help=f"{', '.join(_MAKERS)}, counted, yours",
)
@click.option("--workload", help="Model of the target, for counted: resnet18, torchvision:NAME.")
@click.option("--modes", default="10,20,50", show_default=True, help="Modes to measure.")
@click.option("--runs", default=10, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--sampling", default="random", show_default=True, type=click.Choice(["random", "designed"])
)
@click.option("--power-limits", help="Also choose under these limits, such as 17:50:1.")
@click.option(
    "--confidence",
    default=0.9,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="That a choice keeps its limit; networks take their predictions as they are.",
)
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(), help="Also write the rows as JSON.")
def main(
    target: str,
    board: str,
    references: tuple[str, ...],
    reference_boards: tuple[str, ...],
    predictor: str,
    workload: str | None,
    modes: str,
    runs: int,
    sampling: str,
    power_limits: str | None,
    confidence: float,
    seed: int,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    names, counts = split_names(predictor), _counts(modes)
    ours = (*_MAKERS, "counted")
    for name in names:
        if name not in ours and not names_code(name) and name not in PREDICTORS.others():
            raise UnknownName("predictor", name, ours, OF_OTHERS)
    if len(reference_boards) == 1:
        reference_boards *= len(references)
    if len(reference_boards) != len(references):
        raise InvalidInput("give --reference-board once, or once for each --reference")
    limits_w = _range(power_limits) if power_limits else np.array([])
    home = load_board(board)
    table = _read(target, home)
    known = [
        (_read(path, load_board(name)), load_board(name))
        for path, name in zip(references, reference_boards, strict=True)
    ]
    designer = _gaussian(table, home, known, seed) if sampling == "designed" else None
    click.echo(f"modes to measure: {sampling}", err=True)
    samples = {
        n: [sample_rows(table, n, seed + run, designer) for run in range(runs)] for n in counts
    }
    kinds = _MAKERS | ({"counted": _counted(workload, _kind(table))} if "counted" in names else {})
    makers = {
        name: kinds.get(name, partial(_of_others, name))(table, home, known, seed) for name in names
    }
    rows = []
    for name, n_modes in product(makers, samples):
        click.echo(f"{name}, {n_modes} modes:", err=True)
        deviations = 0.0 if name.startswith("network") else NormalDist().inv_cdf(confidence)
        with Progress("runs", runs) as shown:
            found = evaluate(
                makers[name], table, home, samples[n_modes], seed, limits_w, deviations, shown
            )
        rows.append(
            {"predictor": name, "sampling": sampling, "modes": n_modes, "runs": runs, **found}
        )
    _print(rows)
    n_unsupported, hours = rows[0]["unsupported_rows"], prior_hours(t for t, _ in known)
    click.echo(f"medians over the runs ({runs}); errors are those of the modes not measured")
    click.echo(
        f"screened: without the {n_unsupported} of {len(table)} rows that the others do not support"
    )
    click.echo(f"the references took {hours:.0f} h of their boards")
    if json_path:
        Path(json_path).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    console.run(main)
