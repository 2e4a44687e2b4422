"""Runs what a comparison still lacks, side by side where there are cores, and reports on all."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.quantities import spoken
from powerctl.stopping import unheard
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import RunMeasures, measures_of
from wattfed.server.comparison.report import build_report
from wattfed.server.comparison.table import policies
from wattfed.server.engines.simulation import checked_config, refuse_without_main_guard, run_checked
from wattfed.server.engines.trainers import trains
from wattfed.server.engines.workers import Trains
from wattfed.server.run.federation import NoClients
from wattfed.server.run.history import data_frame, final_value
from wattfed.strategies.run_config import RunConfig

if TYPE_CHECKING:
    from pandas import DataFrame

OnRound = Callable[[RunConfig, int], None]

_POLL_S = 0.5


def runs_at_once(config: RunConfig, jobs: int = 0) -> int:
    """How many runs of a comparison go side by side: as many as asked, or as there is room for.

    A run that says nothing of workers takes one core: a second one would bring it less than another
    run brings. What trains on a cluster has all of it.
    """
    if config.cluster is not None and jobs > 1:
        raise InvalidInput(f"jobs is {jobs}, but runs on a Ray cluster go one after the other")
    if jobs or config.cluster is not None:
        return jobs or 1
    return max(1, len(os.sched_getaffinity(0)) // max(1, int(config.workers)))


class Finished(NamedTuple):
    """A run that ended: its configuration, how it came out, and why it failed if it did."""

    config: RunConfig
    outcome: str = ""
    failure: str = ""


def checked_runs(comparison: Comparison) -> list[RunConfig]:
    """All runs of a comparison; raises for what cannot be simulated before the first begins."""
    return [checked_config(config) for config in comparison.runs()]


def run_comparison(
    folder: ComparisonFolder,
    comparison: Comparison,
    jobs: int,
    on_begin: Callable[[int, int], None],
    on_run: Callable[[Finished], None],
    on_round: OnRound = lambda *_: None,
) -> Comparison:
    """Run whatever a folder lacks of a comparison.

    Parameters
    ----------
    folder : ComparisonFolder
        Where the runs go, each kept as it finishes.
    comparison : Comparison
        What to run; its runs that the folder holds are not repeated.
    jobs : int
        Runs at a time, each in a process of its own; 1 stays in this process, 0 takes as many as
        there is room for (`runs_at_once`).
    on_begin : callable
        Told how many runs there are, and how many of them are finished already.
    on_run : callable
        Told of each run as it ends.
    on_round : callable
        Told of a run's configuration, and of how many of its rounds are over, after each.

    Returns
    -------
    Comparison
        All that the folder holds now, with what was asked of it before.

    Raises
    ------
    InvalidInput
        Naming the runs that failed, when all others are done.
    """
    jobs = runs_at_once(comparison.base, jobs)
    runs = checked_runs(comparison)
    with folder.begun(comparison, max(run.min_nodes for run in runs)) as whole:
        configs = [folder.placed(config) for config in runs]
        missing = [config for config in configs if not folder.finished(config)]
        on_begin(len(configs), len(configs) - len(missing))
        failed = []
        for done in _ended(missing, jobs, on_round):
            on_run(done)
            if done.failure:
                failed.append(f"{done.config.run_name}: {done.failure}")
        if failed:
            raise InvalidInput(
                f"{len(failed)} of {len(configs)} runs failed, the same command tries them again: "
                + "; ".join(failed)
            )
    return whole


def _ended(configs: list[RunConfig], jobs: int, on_round: OnRound) -> Iterator[Finished]:
    """The runs in the order in which they end."""
    jobs = min(jobs, len(configs))
    if not configs:
        return
    if jobs == 1:
        with closing(trains(configs[0])) as trainer:  # which is the same for all
            yield from (_run(config, trainer, on_round) for config in configs)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    others = set(multiprocessing.active_children())
    rounds = context.SimpleQueue()
    with ProcessPoolExecutor(
        jobs, context, initializer=_begin, initargs=(rounds, configs[0])
    ) as pool:
        try:
            with unheard():
                waiting = {pool.submit(_run_in_worker, config) for config in configs}
            while waiting:
                ended, waiting = wait(waiting, _POLL_S, FIRST_COMPLETED)
                while not rounds.empty():
                    on_round(*rounds.get())
                for future in ended:
                    yield future.result()
        except BaseException:  # nobody waits for the runs that go on
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise


def _run(config: RunConfig, trainer: Trains, on_round: OnRound) -> Finished:
    try:
        result = run_checked(config, lambda row: on_round(config, row.round), trainer=trainer)
    except NoClients as error:  # a result too
        return Finished(config, outcome=str(error))
    except PowerctlError as error:
        return Finished(config, failure=str(error))
    last, value = result.rows[-1], final_value(result.rows)
    return Finished(
        config,
        f"{last.target.name} {last.target.printed(value)} after {last.round} rounds, "
        f"{spoken(last.clock_s, 's')}, {spoken(last.total_energy_j, 'J')}",
    )


_rounds: SimpleQueue[tuple[RunConfig, int]]  # of a worker: where it tells of its rounds
_trainer: Trains  # of a worker: what trains in all of its runs


def _run_in_worker(config: RunConfig) -> Finished:
    return _run(config, _trainer, lambda *told: _rounds.put(told))


def _begin(rounds: SimpleQueue[tuple[RunConfig, int]], config: RunConfig) -> None:
    """A worker: what trains in all of its runs, and where it tells of their rounds."""
    global _rounds, _trainer
    _rounds, _trainer = rounds, trains(config)
    Finalize(None, _trainer.close, exitpriority=0)  # before this process waits for its own to end
    end_with_parent()


def end_with_parent() -> None:
    """Make this worker process end at once when the one that began it has been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """A finished comparison: what ran, what each run took, and the report on it.

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
        return data_frame(measure.record() for measure in self.measures)

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
