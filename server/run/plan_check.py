"""What a run is about to do, in a line, and what speaks against it, before its first round."""

from __future__ import annotations

from collections.abc import Sequence

from wattfed.server.comparison.grid import Comparison, Contender
from wattfed.server.run.participants import Participants
from wattfed.strategies.run_config import RunConfig

_NAMED = 8  # clients in a sentence


def headline(config: RunConfig, clients: int, fleet: str = "") -> str:
    """A run in a line: who learns what, what it is charged as, how long, by which policy."""
    rounds = f"up to {config.per_round} a round, {config.rounds} rounds"
    return (
        f"{_task(config, clients, fleet)}; {Contender.of(config).policy}, {rounds}, "
        f"{f'until {config.goal}' if config.goal and config.goal.levels else 'no target'}"
    )


def comparison_headline(comparison: Comparison, clients: int) -> str:
    """A comparison in a line."""
    base, runs = comparison.base, comparison.runs()
    policies = dict.fromkeys(Contender.of(run).policy for run in runs)
    numbers = " or ".join(map(str, comparison.per_round))
    seeds = len(comparison.seeds)
    goal = f"{comparison.metric or 'accuracy'}={','.join(f'{x:g}' for x in comparison.targets)}"
    until = f"all rounds, counted until {goal}" if comparison.all_rounds else f"until {goal}"
    return (
        f"{_task(base, clients, base.fleet)}; {len(policies)} policies, up to {numbers} a round, "
        f"{base.rounds} rounds, {seeds} seed{'s' * (seeds > 1)}, {until}"
    )


def _task(config: RunConfig, clients: int, fleet: str) -> str:
    of = f" of {fleet}" if fleet else ""
    return (
        f"{clients:,} clients{of} learn {config.task}, and are charged {config.workload} for each "
        "minibatch"
    )


def warnings(config: RunConfig, participants: Participants) -> tuple[str, ...]:
    """What speaks against a plan, a sentence each; nothing where all is well."""
    return tuple(_warnings(config, participants))


def _warnings(config: RunConfig, participants: Participants) -> list[str]:
    found = []
    is_blind = Contender.of(config).power == "maxn"  # takes whoever is there
    able = participants.clients - participants.n_unable
    if participants.n_unable and not is_blind:
        found.append(unable_words(participants))
    if 0 < able < config.per_round and not is_blind:
        found.append(f"per-round is {config.per_round}, but only {able} can take part")
    if 0 < participants.minibatches <= config.local_epochs:
        found.append(
            "a client has at most one minibatch of data (the median: examples "
            f"{participants.examples}) and takes {participants.minibatches} steps a round, which "
            "may teach it nothing: take fewer clients, or more --local-epochs or --per-round"
        )
    goal = config.goal
    if participants.chance and goal and goal.metric == "accuracy":
        found += [
            f"target accuracy {level:g} is below chance: always the most frequent label gives "
            f"{participants.chance:.3f}"
            for level in goal.levels
            if level <= participants.chance
        ]
    return found


def unable_words(participants: Participants) -> str:
    """Who cannot take part now, and why."""
    told = by_reason(participants, participants.reasons())
    more = participants.n_unable - len(participants.unable)
    rest = f"; and {more:,} more" if more else ""
    counted = f"{participants.n_unable:,} of {participants.clients:,} clients"
    return f"{counted} cannot take part: {told}{rest}"


def by_reason(participants: Participants, reasons: dict[str, list[int]]) -> str:
    """Clients by the kind of reason that keeps them out, each with the first one's words."""
    return "; ".join(
        f"{named(clients)} ({participants.unable[clients[0]]})" for clients in reasons.values()
    )


def named(clients: Sequence[int]) -> str:
    """Some clients by their numbers, the first of many."""
    more = f" and {len(clients) - _NAMED:,} more" if len(clients) > _NAMED else ""
    noun = "client" if len(clients) == 1 else "clients"
    return f"{noun} {' '.join(map(str, clients[:_NAMED]))}{more}"
