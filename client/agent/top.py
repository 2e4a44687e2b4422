"""The live view of an agent: mode, power, and what becomes of every job's requests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from powerctl.console import table_lines
from wattfed.client.agent.proto import agent_pb2 as pb

_HEADER = (
    *("job", "kind", "rate/s", "turns/s", "busy%", "batch"),
    *("queue", "refused", "p50 ms", "p99 ms", "budget"),
)
_DROPPED_FIRST = (
    "kind",
    "turns/s",
    "batch",
    "queue",
    "busy%",
    "refused",
)  # for room


def show_live(statuses: Iterable[pb.Status], console: Console, frames: int = 0) -> None:
    """Show statuses as they come, until they end; after so many if not 0.

    On a terminal they are drawn in place; else one after the other, the first with its rates.
    """
    pairs = pairwise(statuses) if not console.is_terminal else _with_the_one_before(statuses)
    if not console.is_terminal:
        for before, status in islice(pairs, frames or 1):
            click.echo("\n".join(live_lines(status, before)))
        return
    with Live(console=console, auto_refresh=False) as live:
        for before, status in islice(pairs, frames or None):
            lines = live_lines(status, before, console.width)
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)


def _with_the_one_before(
    statuses: Iterable[pb.Status],
) -> Iterator[tuple[pb.Status | None, pb.Status]]:
    before = None
    for status in statuses:
        yield before, status
        before = status


def live_lines(status: pb.Status, before: pb.Status | None, width: float = math.inf) -> list[str]:
    """A status with the rates since another, in columns that a width has room for."""
    earlier = {job.name: job for job in before.jobs} if before else {}
    seconds = status.uptime_s - before.uptime_s if before else math.nan
    rows = [_row(job, earlier.get(job.name), seconds) for job in status.jobs]
    running = f"running: {status.running or 'nothing'}  load {100 * status.plan.load:.0f} %"
    header = list(_HEADER)
    for column in ("", *_DROPPED_FIRST):
        if column:
            place = header.index(column)
            header.pop(place)
            for row in rows:
                row.pop(place)
        table = table_lines(header, rows)
        if max(map(len, table)) <= width:
            break
    return [*status_lines(status), running, *table]


def status_lines(status: pb.Status) -> list[str]:
    """Device, power and energy, and the plan in force, a line each."""
    power = "" if math.isnan(status.power_w) else f"{status.power_w:.3g} W, "
    limit_w = status.plan.power_limit_w
    limit = f"limit {limit_w:.3g} W" if limit_w else "no limit (--power)"
    return [
        f"{status.device}, mode {status.mode}, up {status.uptime_s:.0f} s",
        f"{power}{limit}, {status.energy_j:.4g} J since ({status.energy_source})",
        describe_plan(status.plan),
        *([f"idle time: {status.idle}"] if status.idle else []),
    ]


def describe_plan(plan: pb.Plan) -> str:
    """The plan in force, in a line."""
    sizes = ", ".join(f"{name} in batches of {n}" for name, n in sorted(plan.batch_size.items()))
    line = f"plan: {plan.mode}{', ' if sizes else ''}{sizes}"
    if plan.rate_hz:
        kept = "" if plan.feasible else ", which cannot be met"
        line += f", for {plan.rate_hz:.3g}/s within {plan.power_limit_w:.3g} W{kept}"
        line += f", changed {plan.changes} times"
    return f"{line} ({plan.origin})"


def _row(job: pb.JobStatus, before: pb.JobStatus | None, seconds: float) -> list[object]:
    def rate(field: str) -> float:
        return (getattr(job, field) - getattr(before, field)) / seconds if before else math.nan

    is_training = job.kind == pb.TRAIN
    turns, answered = rate("turns"), rate("answered")
    batch = answered / turns if turns > 0 else math.nan
    return [
        f"{job.name} (left)" if job.left else job.name,
        "train" if is_training else "infer",
        math.nan if is_training else rate("arrived"),
        turns,
        100 * rate("busy_s"),
        batch,
        job.queued,
        job.rejected_late + job.rejected_full,
        1e3 * job.latency_p50_s,
        1e3 * job.latency_p99_s,
        1e3 * job.latency_s if math.isfinite(job.latency_s) else math.nan,
    ]
