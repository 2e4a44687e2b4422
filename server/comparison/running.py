"""Runs what a comparison still lacks, in worker processes where there are cores for them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing.queues import SimpleQueue
from typing import NamedTuple

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.stopping import unheard
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.engines.simulation import checked, run_checked
from wattfed.server.run.federation import NoClients
from wattfed.server.run.history import final_value
from wattfed.strategies.run_config import RunConfig

OnRound = Callable[[RunConfig, int], None]

_POLL_S = 0.5


class Finished(NamedTuple):
    """A run that ended: its configuration, how it came out, and why it failed if it did."""

    config: RunConfig
    outcome: str = ""
    failure: str = ""


def checked_runs(comparison: Comparison) -> list[RunConfig]:
    """All runs of a comparison; raises for what cannot be simulated before the first begins."""
    return [checked(config) for config in comparison.runs()]


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
        there are cores.
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
    runs = checked_runs(comparison)
    with folder.begun(comparison, max(run.min_nodes for run in runs)) as whole:
        configs = [folder.placed(config) for config in runs]
        missing = [config for config in configs if not folder.finished(config)]
        on_begin(len(configs), len(configs) - len(missing))
        failed = []
        for done in _ended(missing, jobs or len(os.sched_getaffinity(0)), on_round):
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
    if jobs <= 1:
        yield from (_run(config, on_round) for config in configs)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    others = set(multiprocessing.active_children())
    rounds = context.SimpleQueue()
    with ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(rounds,)) as pool:
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


def _run(config: RunConfig, on_round: OnRound) -> Finished:
    try:
        result = run_checked(config, lambda row: on_round(config, row.round))
    except NoClients as error:  # a result too
        return Finished(config, outcome=str(error))
    except PowerctlError as error:
        return Finished(config, failure=str(error))
    last, value = result.rows[-1], final_value(result.rows)
    return Finished(
        config,
        f"{last.target.name} {last.target.printed(value)} after {last.round} rounds, "
        f"{last.clock_s:.0f} s, {last.total_energy_j / 1e3:.1f} kJ",
    )


_rounds: SimpleQueue[tuple[RunConfig, int]]  # of a worker: where it tells of its rounds


def _run_in_worker(config: RunConfig) -> Finished:
    return _run(config, lambda *told: _rounds.put(told))


def _begin(rounds: SimpleQueue[tuple[RunConfig, int]]) -> None:
    """A worker, which must not wait for work for ever when the comparison has been killed."""
    global _rounds
    _rounds = rounds
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
