"""What a run would be, told before anything is trained: `--dry-run` of the commands that run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl import console

if TYPE_CHECKING:
    from wattfed.strategies.protocol import RoundOffer
    from wattfed.strategies.run_config import RunConfig

_ROWS = 30  # kinds of clients that are listed
_HEADER = (
    *("clients", "board", "limit (W)", "minibatches", "MAXN (s)", "(J)"),
    *("fastest in limits (s)", "(J)", "least energy (s)", "(J)", "in mode", "cannot take part"),
)

dry_run_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--dry-run",
    is_flag=True,
    help="Show clients, modes and costs of the first round, and train nothing.",
)


def print_clients(config: RunConfig) -> None:
    """Print the clients of a run that is not made: what a round's training takes each of them.

    Parameters
    ----------
    config : RunConfig
        As `checked_config` gives it.
    """
    from wattfed.server.engines.simulation import kinds_of_clients

    kinds = kinds_of_clients(config)
    console.print_table(_HEADER, [_row(*kind) for kind in kinds[:_ROWS]])
    if len(kinds) > _ROWS:
        left = sum(len(clients) for clients, *_ in kinds[_ROWS:])
        click.echo(f"and {left:,} more clients, with {len(kinds) - _ROWS:,} other boards or limits")
    click.echo("expected of a round's training by the first of the clients; nothing was trained")


def print_run_plan(config: RunConfig) -> None:
    """Print a run that is not made: what it is, its clients, and warnings."""
    from wattfed.server.engines.simulation import charged_words, plan_of
    from wattfed.server.run.participants import headline

    click.echo(headline(config, config.min_nodes, charged_words(config), config.fleet))
    print_clients(config)
    for warning in plan_of(config).warnings:
        click.echo(f"warning: {warning}")
    click.echo(f"results would go to: {Path(config.out_dir, config.run_name).resolve()}")


def _row(clients: range, board: str, limit_w: float, offer: RoundOffer) -> tuple[object, ...]:
    n, front = offer.minibatches, offer.front
    choices = [(n * front.time_s[i], n * front.energy_j[i]) for i in (0, -1) if len(front)]
    fastest, least = choices or [(math.nan, math.nan)] * 2
    return (
        str(clients[0]) if len(clients) == 1 else f"{clients[0]}-{clients[-1]}",
        board,
        limit_w if math.isfinite(limit_w) else math.nan,
        n,
        *(n * offer.maxn.time_s, n * offer.maxn.energy_j),
        *map(float, (*fastest, *least)),
        str(front.modes[-1]) if len(front) else "-",
        offer.decline,
    )
