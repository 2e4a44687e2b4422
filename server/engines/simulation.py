"""Simulation of a fleet on a virtual clock: Flower's app without Ray and without messages."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from powerctl.errors import InvalidInput
from wattfed.client.fleet import load_fleet
from wattfed.client.worker.charging import charge_of_fleet
from wattfed.server.engines.trainers import trains
from wattfed.server.engines.virtual import VirtualEngine
from wattfed.server.engines.workers import Trains
from wattfed.server.run.engine import OnPart
from wattfed.server.run.federation import check, run_rounds, task_of
from wattfed.server.run.history import FederationResult, RoundRow
from wattfed.server.run.participants import Participants
from wattfed.strategies.protocol import RoundOffer
from wattfed.strategies.run_config import RunConfig


def checked_config(config: RunConfig) -> RunConfig:
    """The configuration with its fleet's number of nodes; raises for what cannot be simulated."""
    check(config)
    task_of(config).check_arguments()
    return replace(config, min_nodes=len(load_fleet(config.fleet)))


def simulate(
    config: RunConfig | None = None,
    on_row: Callable[[RoundRow], None] | None = None,
    **options: Any,
) -> FederationResult:
    """Run a federation over all clients of the configured fleet, and write its results' folder.

    The same strategy and the same client as on Flower's runtimes: the same seed gives the same
    selections and the same model there. Nothing is printed; a seed and threads that the caller
    has set in torch stay as they are.

    Parameters
    ----------
    config : RunConfig, optional
        The run; by default the usual one, in this process alone.
    on_row : callable, optional
        Called with the initial model's row and after each round.
    **options
        Fields of `RunConfig`, which replace those of the configuration: ``rounds=5``.

    Raises
    ------
    UnknownName, InvalidInput
        For an option that there is not, or that is outside its range.
    NoClients
        If no client took part in any round.
    """
    refuse_without_main_guard()
    config = (RunConfig(workers=1) if config is None else config).changed(**options)
    return run_checked(checked_config(config), on_row)


def run_checked(
    config: RunConfig,
    on_row: Callable[[RoundRow], None] | None = None,
    on_part: OnPart = lambda *_: None,
    on_plan: Callable[[Participants], None] | None = None,
    trainer: Trains | None = None,
) -> FederationResult:
    """As `simulate`, of a configuration from `checked`: for who checks many before the first.

    A trainer is left open for the next run.
    """
    with _unnoticed(), ExitStack() as opened:
        if trainer is None:
            trainer = opened.enter_context(closing(trains(config)))
        engine = VirtualEngine(config, load_fleet(config.fleet), on_part, trainer)
        return run_rounds(engine, config, on_row, on_plan)


def plan_of(config: RunConfig) -> Participants:
    """The clients that a simulation would begin with, and what speaks against its plan."""
    with _unnoticed():
        return VirtualEngine(config, load_fleet(config.fleet)).plan()


def kinds_of_clients(config: RunConfig) -> list[tuple[range, str, float, RoundOffer]]:
    """The clients of a simulation before its first round, those alike in a row together.

    Of each kind: its clients, their board, the power limit in watts, and the first one's offer.
    """
    fleet = load_fleet(config.fleet)
    limits_w = fleet.profiles.power_w
    differs = (fleet.device[1:] != fleet.device[:-1]) | (limits_w[1:] != limits_w[:-1])
    bounds = [0, *(np.flatnonzero(differs) + 1).tolist(), len(fleet)]
    with _unnoticed():
        engine = VirtualEngine(config, fleet)
        participants, offers = engine.plan(), engine.first_offers(bounds[:-1])
    return [
        (range(a, b), participants.name_of(a), float(limits_w[a]), offer)
        for (a, b), offer in zip(pairwise(bounds), offers, strict=True)
    ]


def charged_words(config: RunConfig) -> str:
    """What minibatches of a simulation are charged as, and what its rounds are, in words."""
    fleet = load_fleet(config.fleet)
    charge, _ = charge_of_fleet(config, len(fleet))
    return charge.told(fleet.rounds)


def refuse_without_main_guard() -> None:
    """Raise if a worker process is about to run its parent's script, and all simulations in it."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InvalidInput(
            "a script that simulates in several processes (workers, jobs) is run by each of them: "
            'put what it does under `if __name__ == "__main__":`'
        )


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Without Flower's lines on rounds, and with the caller's seed and threads kept."""
    log, threads = logging.getLogger("flwr"), torch.get_num_threads()
    level = log.level
    log.setLevel(max(level, logging.WARNING))
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        log.setLevel(level)
        torch.set_num_threads(threads)
