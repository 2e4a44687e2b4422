"""The live view of an agent: mode, power, and what becomes of every job's requests."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wattfed.client.agent.proto import agent_pb2 as pb

_COLUMNS = (
    *("job", "kind", "rate/s", "turns/s", "busy%", "batch"),
    *("queue", "refused", "p50 ms", "p99 ms", "budget"),
)


def show(statuses: Iterable[pb.Status], console: Console, frames: int = 0) -> None:
    """Show statuses as they come, until they end; after so many if not 0."""
    before: pb.Status | None = None
    with Live(console=console, auto_refresh=False) as live:
        for number, status in enumerate(statuses, start=1):
            live.update(render(status, before), refresh=True)
            before = status
            if number == frames:
                return


def render(status: pb.Status, before: pb.Status | None) -> Group:
    """A status, with the rates since another."""
    power = "" if math.isnan(status.power_w) else f"{status.power_w:.3g} W, "
    line = (
        f"{status.device}  mode {status.mode}  {power}{status.energy_j:.4g} J "
        f"({status.energy_source})  up {status.uptime_s:.0f} s"
    )
    plan = describe_plan(status.plan)
    running = f"running: {status.running or 'nothing'}  load {100 * status.plan.load:.0f} %"
    table = Table(*_COLUMNS, box=None, header_style="bold", pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    earlier = {job.name: job for job in before.jobs} if before else {}
    seconds = status.uptime_s - before.uptime_s if before else math.nan
    for job in status.jobs:
        table.add_row(*_row(job, earlier.get(job.name), seconds))
    return Group(Text(line), Text(plan), Text(running), table)


def describe_plan(plan: pb.Plan) -> str:
    """The plan in force, in a line."""
    sizes = ", ".join(f"{name} in batches of {n}" for name, n in sorted(plan.batch_size.items()))
    line = f"plan: {plan.mode}{', ' if sizes else ''}{sizes}"
    if plan.rate_hz:
        kept = "" if plan.feasible else ", which cannot be met"
        line += f", for {plan.rate_hz:.3g}/s within {plan.power_limit_w:.3g} W{kept}"
        line += f", changed {plan.changes} times"
    return f"{line} ({plan.origin})"


def _row(job: pb.JobStatus, before: pb.JobStatus | None, seconds: float) -> list[str]:
    def rate(field: str) -> float:
        return (getattr(job, field) - getattr(before, field)) / seconds if before else math.nan

    is_training = job.kind == pb.TRAIN
    turns, answered = rate("turns"), rate("answered")
    batch = answered / turns if turns > 0 else math.nan
    return [
        job.name,
        "train" if is_training else "infer",
        _number(math.nan if is_training else rate("arrived")),
        _number(turns),
        _number(100 * rate("busy_s")),
        _number(batch),
        str(job.queued),
        str(job.rejected_late + job.rejected_full),
        _number(1e3 * job.latency_p50_s),
        _number(1e3 * job.latency_p99_s),
        _number(1e3 * job.latency_s),
    ]


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "-"
