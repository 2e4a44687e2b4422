"""A whole comparison: run what is missing, measure all of it, write the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from powerctl.errors import InvalidInput
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import RunMeasures, measures_of
from wattfed.server.comparison.report import build_report
from wattfed.server.comparison.running import Finished, OnRound, run_comparison
from wattfed.server.comparison.table import policies
from wattfed.server.engines.simulation import refuse_without_main_guard
from wattfed.server.run.frames import frame

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """A finished comparison.

    Attributes
    ----------
    comparison : Comparison
        All that the folder holds, with what was asked of it before.
    measures : tuple of RunMeasures
        What each run took, at each target accuracy.
    report : Path
        The page on it, in the comparison's folder.
    """

    comparison: Comparison
    measures: tuple[RunMeasures, ...]
    report: Path

    def to_pandas(self) -> DataFrame:
        """A table of pandas: a row for each run and target accuracy, as in ``runs.csv``."""
        return frame(measure.record() for measure in self.measures)

    def __repr__(self) -> str:
        runs = len(self.measures) // len(self.comparison.targets)
        return f"<{runs} runs of {len(policies(self.measures))} policies, report: {self.report}>"


def compare(
    comparison: Comparison | None = None,
    *,
    out: str | Path = "runs/comparison",
    baseline: str = "",
    jobs: int = 1,
    on_begin: Callable[[int, int], None] = lambda runs, finished: None,
    on_run: Callable[[Finished], None] = lambda run: None,
    on_round: OnRound = lambda *_: None,
    **options: Any,
) -> ComparisonResult:
    """Compare policies x power policies x clients a round x seeds, and write a report.

    A run is kept as soon as it has finished: after a kill, the same call goes on with the rest.
    More policies, numbers of clients and seeds may be added to a folder.

    Parameters
    ----------
    comparison : Comparison, optional
        What to run; by default what the options say.
    out : str or Path
        Folder of the runs and of the report.
    baseline : str
        ``STRATEGY[:POWER]``, what the report's ratios are to; by default ``random:maxn``.
    jobs : int
        Runs at a time; 1 stays in this process, 0 takes as many as there are cores.
    on_begin, on_run, on_round : callable
        Told of how many runs there are and how many have finished before, of each run as it
        ends, and of a run's configuration and how many of its rounds are over, after each.
    **options
        As `wattfed compare` has them: ``strategies=["random", "pace"]``, ``power``, ``per_round``,
        ``seeds``, ``seed``, ``target_accuracy``, ``all_rounds``, and fields of `RunConfig`.

    Raises
    ------
    UnknownName, InvalidInput
        For an option that there is not, or that is outside its range; for a folder of another
        comparison; naming the runs that failed, when all others are done.
    """
    refuse_without_main_guard()
    if comparison is None:
        comparison = Comparison.of(**{"workers": 1, **options})
    elif options:
        raise InvalidInput(f"give a comparison or options, not both; got {', '.join(options)}")
    folder = ComparisonFolder(Path(out))
    whole = run_comparison(folder, comparison, jobs, on_begin, on_run, on_round)
    report = build_report(folder.path, baseline)
    return ComparisonResult(whole, tuple(measures_of(folder, whole)), report)
