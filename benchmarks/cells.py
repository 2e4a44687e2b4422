"""One cell of a comparison of selection policies: a task, a skew and a fleet, with one budget.

All policies of a cell get the same joules and run until they are spent, so that every figure is
read from curves of the same length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from powerctl.modes import FloatArray
from powerctl.plugins import split_names
from wattfed.client.fleet.round_costs import real_rounds
from wattfed.client.tasks.federated import FederatedTask
from wattfed.client.worker.model_arrays import load_file
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import Comparison
from wattfed.server.comparison.measures import Course, RunMeasures, measure_run
from wattfed.server.run.federation import task_of
from wattfed.server.run.history import FederationResult
from wattfed.strategies.accounting import ALWAYS_ON, CHARGED, TRAINING
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

_ENDLESS = 1_000_000  # rounds of who has a budget
_REFERENCE_ROUNDS = 300  # of random, where it does not come to the target
_ALLOWANCE = 1.5  # times what random takes
_RUNGS = (0.6, 0.8, 0.9)  # of the way from the initial model to the target
_WORST = 0.1  # of the clients
_ENERGY = {
    CHARGED: "energy_to_target_j",
    TRAINING: "energy_training_to_target_j",
    ALWAYS_ON: "energy_always_on_to_target_j",
}
_TO_TARGET = ("rounds_to_target", "time_to_target_s", *_ENERGY.values())
_OF_RUN = (
    *("energy_j", "energy_training_j", "energy_always_on_j", "virtual_time_s"),
    *("wasted_energy_j", "clients_per_round", "jain_fairness"),
    *("budget_violations", "latency_violations"),
)


def cells_of(comparison: Comparison, is_ideal: bool = False) -> dict[str, Comparison]:
    """A cell for each of the tasks, skews and fleets that a comparison names, by its name."""
    base, cells = comparison.base, {}
    skews = split_names(base.skew) or ("",)
    for task, skew, fleet in product(split_names(base.task), skews, split_names(base.fleet)):
        named = _ideal(fleet) if is_ideal else fleet
        whole = replace(comparison, base=replace(base, task=task, skew=skew, fleet=named))
        words = f"{task} {skew or base.split} {named}"
        cells[re.sub(r"[^\w.=]+", "-", words).strip("-")] = whole
    return cells


def _ideal(fleet: str) -> str:
    return f"{fleet.removesuffix(')')}{',' if fleet.endswith(')') else '('}ideal=true)"


def reference_of(cell: Comparison, n_seeds: int = 5) -> Comparison:
    """The runs by which a budget is found: random at MAXN until the target, of the first seeds.

    However many a cell has, they are as many, so that the budget stays when some are added.
    """
    base = replace(cell.base, rounds=_REFERENCE_ROUNDS, budget_j=0.0)
    seeds = tuple(range(cell.seeds[0], cell.seeds[0] + n_seeds))
    return replace(
        cell, base=base, strategies=("random",), powers=("maxn",), seeds=seeds, all_rounds=False
    )


def budget_by(folder: ComparisonFolder, reference: Comparison) -> float:
    """1.5 times the median joules that the runs of `reference_of` took, in their accounting.

    To the target, or in all rounds of those that missed it; at the number of clients for which it
    is least.
    """
    spent_j: dict[int, list[float]] = {}
    accounting = reference.base.accounting
    for result in folder.results(reference):
        course = Course.of(result.rows)
        level = result.target.easiest_first(reference.targets)[-1]
        until_j = course.until(result.target, level)[_ENERGY[accounting]]
        spent = course.energy_j[accounting][-1] if until_j is None else until_j
        spent_j.setdefault(result.config.per_round, []).append(spent)
    return _ALLOWANCE * min(map(median, spent_j.values()))


def limited(cell: Comparison, budget_j: float, *, goes_on: bool = True) -> Comparison:
    """A cell whose runs have so many joules; they go on past their target, or end there."""
    base = replace(cell.base, budget_j=budget_j, rounds=_ENDLESS)
    return replace(cell, base=base, all_rounds=goes_on)


def rows_of(folder: ComparisonFolder, cell: Comparison) -> Iterator[dict[str, Any]]:
    """What each finished run took, in the fields of the benchmark.

    The hardest level of the target is the target, and the easier ones are its rungs.
    """
    _, n_clients = folder.asked()
    for result in folder.results(cell):
        yield _row(result, n_clients, cell.targets)


def _row(result: FederationResult, n_clients: int, targets: Sequence[float]) -> dict[str, Any]:
    config, target = result.config, result.target
    *rungs, level = target.easiest_first(targets)
    run = measure_run(result, n_clients, level)
    first = next((row.value for row in result.rows if row.value is not None), None)
    if not rungs and first is not None and math.isfinite(first):
        rungs = [first + share * (level - first) for share in _RUNGS]
    fixed_s = _fixed_s(config)
    return {
        **{name: getattr(run, name) for name in ("strategy", "power", "per_round", "seed")},
        "task": config.task,
        "skew": config.skew or ("own" if task_of(config).samples is None else config.split),
        "fleet": config.fleet,
        "accounting": config.accounting,
        "budget_j": config.budget_j,
        "metric": target.name,
        "target": level,
        **_until(run, fixed_s),
        "censored": run.rounds_to_target is None,
        "rungs": [{"metric": rung, **_until(run.until_held(rung), fixed_s)} for rung in rungs],
        "final_metric": run.final,
        "worst_decile": worst_tenth(result, n_clients),
        **{name: getattr(run, name) for name in _OF_RUN},
        "time_fixed_s": run.virtual_time_s + fixed_s * run.rounds,
    }


def _until(run: RunMeasures, fixed_s: float) -> dict[str, Any]:
    time_s, rounds = run.time_to_target_s, run.rounds_to_target
    fixed = None if time_s is None or rounds is None else time_s + fixed_s * rounds
    return {
        **{name: getattr(run, name) for name in _TO_TARGET},
        "time_fixed_to_target_s": fixed,
    }


def _fixed_s(config: RunConfig) -> float:
    """Seconds of a round that an ideal one leaves out."""
    if "ideal=true" not in config.fleet:
        return 0.0
    return float(real_rounds()["fixed_s"]["with_agent"])


def worst_tenth(result: FederationResult, n_clients: int) -> float | None:
    """The mean metric of the tenth of the clients for whom the final model is worst.

    Of a task of ours, the central samples weighted by each client's shares of labels; of a task of
    one's own, each client's validation loader. None where a task of ours is judged by another
    metric than accuracy.
    """
    config = result.config
    task = task_of(config)
    model = task.model()
    load_file(model, result.folder / "model.pt")
    if task.samples is None:
        found = [
            task.evaluation(model, client, n_clients, config.seed).run()
            for client in range(n_clients)
        ]
        values = np.array([metrics[result.target.name] for metrics in found], dtype=float)
    elif result.target != Target():
        return None
    else:
        counts = task.samples.counts(n_clients, config.split, config.seed)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        values = shares @ _by_label(task, model, counts.shape[1])
    worst = result.target.worst_first(values)[: math.ceil(_WORST * len(values))]
    return float(values[worst].mean())


@torch.no_grad()
def _by_label(task: FederatedTask, model: nn.Module, n_labels: int) -> FloatArray:
    """The accuracy on the central samples of each label; 0 where there are none."""
    n, right = np.zeros((2, n_labels))
    model.eval()
    for inputs, labels in task.central:
        found = model(inputs).argmax(dim=1) == labels
        n += np.bincount(labels, minlength=n_labels)[:n_labels]
        right += np.bincount(labels[found], minlength=n_labels)[:n_labels]
    return np.asarray(right / np.maximum(n, 1))
