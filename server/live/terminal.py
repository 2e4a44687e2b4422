"""A run in a terminal: a snapshot as lines of text, and a view that is drawn again in place."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from textwrap import wrap

from rich.console import Console
from rich.live import Live
from rich.text import Text

from powerctl.console import table_lines
from powerctl.quantities import spoken
from wattfed.server.live.run import LiveRun
from wattfed.server.live.snapshot import ClientAccount, RoundWork, Snapshot, run_state, under_way
from wattfed.server.run.history import TROUBLES, RoundRow, best_value, final_value, troubles_of

ROUNDS, CLIENTS = 20, 50  # shown where there is no end of the screen
_ROUND_COLUMNS = (
    *("trained", "time (s)", "energy (kJ)", "train (kJ)", "predicted"),
    *("longest (s)", "predicted", "trouble"),
)
_CLIENT_COLUMNS = (
    *("client", "board", "trained", "round", "time (s)", "predicted", "energy (J)", "predicted"),
    *("left (J)", "trouble"),
)
_OUTSIDE = 12  # lines of a view that are not rows of its tables


def show_run(run: LiveRun, console: Console, every_s: float) -> None:
    """Draw a run again and again until it has finished."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            now = run.look()
            told = len(_said(now, console.width))
            rows = max(console.height - _OUTSIDE - told, 2)
            rounds = min(rows // 2, len(now.rows))
            lines = snapshot_lines(now, rounds, rows - rounds, console.width)
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            if now.is_finished:
                return
            time.sleep(every_s)


def snapshot_lines(
    now: Snapshot, rounds: int = ROUNDS, clients: int = CLIENTS, width: int = 0
) -> list[str]:
    """A snapshot with at most its last rounds, and the clients asked last.

    Sentences are broken at a width, if one is given.
    """
    return [_printable(line) for line in _lines(now, rounds, clients, width)]


def _said(now: Snapshot, width: int) -> list[str]:
    """What is said of a run in sentences, broken into lines."""
    said = [*(f"warning: {text}" for text in now.participants.warnings), *now.judgement]
    return [line for text in said for line in (wrap(text, width) if width else [text])]


def _lines(now: Snapshot, rounds: int, clients: int, width: int) -> Iterator[str]:
    config = now.config
    yield f"{run_state(now)}: {now.folder}"
    yield (
        f"{config.task} with {now.policy}; simulated boards are charged {now.charged} for each "
        "minibatch"
    )
    yield from _sums(now)
    yield from _said(now, width)
    if now.under_way:
        yield under_way(now.under_way, now.participants)
    if not now.rows:
        return
    yield ""
    last = [_round(row, now.work.get(row.round)) for row in now.rows[-rounds:]]
    yield from table_lines(("round", now.target.name, *_ROUND_COLUMNS), last)
    if not now.clients:
        return
    yield ""
    shown = now.heard_last(clients)
    yield from table_lines(_CLIENT_COLUMNS, [_client(account) for account in shown])
    if len(shown) < len(now.clients):
        yield f"and {len(now.clients) - len(shown):,} more clients, which were asked earlier"


def _sums(now: Snapshot) -> Iterator[str]:
    total = now.summary
    if not total:
        yield "the initial model is not evaluated yet"
        return
    target, goal = now.target, now.config.goal
    final, best = target.printed(final_value(now.rows)), target.printed(best_value(now.rows))
    levels = ", ".join(f"{level:g}" for level in goal.levels) if goal else ""
    yield (
        f"{target.name} {final}, best {best}"
        f"{f', target {levels}' if levels else ''}; {spoken(total['virtual_time_s'], 's')}, "
        f"{spoken(total['energy_j'], 'J')}, of which "
        f"waiting {spoken(total['wait_energy_j'], 'J')}, "
        f"transfer {spoken(total['transfer_energy_j'], 'J')}, "
        f"overhead {spoken(total['overhead_energy_j'], 'J')}, "
        f"carriers and supplies {spoken(total['supply_energy_j'], 'J')}, "
        f"wasted {spoken(total['wasted_energy_j'], 'J')}"
    )
    yield ", ".join(f"{what} {total[key]}" for key, what in TROUBLES)
    if now.refusals:
        last = now.refusals[-1]
        yield f"{len(now.refusals)} replies refused, the last in round {last.round}: {last}"


def _round(row: RoundRow, work: RoundWork | None) -> tuple[object, ...]:
    entry, value = row.entry, row.target.in_table(row.value)
    if entry is None:
        return (row.round, value, "-", *(math.nan,) * 6, "")
    costs = (math.nan,) * 4
    if work is not None:
        energies_kj = (work.energy_j / 1e3, work.expected_energy_j / 1e3)
        costs = (*energies_kj, work.time_s, work.expected_time_s)
    trained = f"{entry.reported} of {len(entry.clients)}"
    spent = (entry.round_time_s, entry.energy_j / 1e3)
    return (row.round, value, trained, *spent, *costs, troubles_of(row.entry))


def _client(account: ClientAccount) -> tuple[object, ...]:
    last, left_j = account.last, account.budget_left_j
    costs = (math.nan,) * 4
    if last is not None:
        costs = (last.time_s, last.expected_time_s, last.energy_j, last.expected_energy_j)
    return (
        account.client,
        account.name or "-",
        f"{account.trained} of {account.asked}",
        account.last_round,
        *costs,
        left_j if math.isfinite(left_j) else math.nan,
        account.words,
    )


def _printable(line: str) -> str:
    """Without what a terminal would obey: reasons come from clients."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
