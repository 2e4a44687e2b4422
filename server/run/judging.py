"""Judges a run by its records: whether it reached and holds its target, who took part, why not.

Every view of a run says what is said here: the terminal, the reports and the live pages. A run
holds the mean of its last three evaluations (`history.held_values`), for one round alone may be
luck. It has learned something if it holds a tenth of the way from chance to 1, chance
being the accuracy of who always guesses the most frequent label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from powerctl.quantities import spoken
from wattfed.server.run.contender import Contender
from wattfed.server.run.history import (
    FederationResult,
    RoundRow,
    Spending,
    best_held,
    best_value,
    final_value,
    goal_levels,
    held_by_all,
    held_values,
    spending_to,
    spent_budgets,
)
from wattfed.server.run.participants import Participants
from wattfed.strategies.run_config import RunConfig
from wattfed.strategies.target import Target

_LEARNED = 0.1  # of the way from chance to a perfect accuracy
_WINDOW = 5  # rounds in which who still learns gets better
_GAIN = 0.02  # of all that was gained since the first rounds: less in a window is a plateau


@dataclass(frozen=True)
class RunJudgement:
    """What came of a run, in sentences.

    Attributes
    ----------
    outcome : str
        Whether it reached its target and holds it, or what it came to.
    course : str
        Whether it got better to the end; empty with too few rounds to tell.
    participation : str
        How many took part in a round, and who never did and why.
    advice : str
        What to try next; empty where nothing calls for it.
    """

    outcome: str
    course: str
    participation: str
    advice: str

    def sentences(self) -> list[str]:
        """All that there is to say."""
        return [text for text in vars(self).values() if text]


def judge(
    config: RunConfig,
    rows: Sequence[RoundRow],
    trained: Mapping[int, int],
    participants: Participants,
    *,
    is_finished: bool = True,
) -> RunJudgement:
    """The judgement on a run, finished or not.

    Parameters
    ----------
    config : RunConfig
        The run.
    rows : sequence of RoundRow
        Its history, round 0 first.
    trained : mapping of int to int
        How often each client trained.
    participants : Participants
        Its clients, as they were when the last round began.
    is_finished : bool
        Whether no more rounds follow.
    """
    learned = has_learned(rows, participants)
    course = _course(rows) if learned else ""
    return RunJudgement(
        outcome=_outcome(config, rows, participants, learned),
        course=course,
        participation=_participation(config, rows, trained, participants),
        advice=_advice(config, rows, participants, learned, course) if is_finished else "",
    )


def judge_result(result: FederationResult) -> RunJudgement:
    """The judgement on a run that was read back, or has just finished."""
    return judge(result.config, result.rows, result.participations, result.participants)


def has_learned(rows: Sequence[RoundRow], participants: Participants) -> bool:
    """Whether a run holds more than chance gives, and more than its initial model.

    With fewer than three evaluations, whether one of them has it. Where clients alone evaluate, the
    initial model's value is not known: then chance has to do, or that it did not get worse.
    """
    target = rows[-1].target
    best = best_held(rows) if _n_evaluated(rows) >= 3 else best_value(rows)
    if best is None:
        return False
    bar = learned_from(target, participants)
    if bar is not None and not best > bar:
        return False
    first = next(row for row in rows if row.value is not None)
    assert first.value is not None
    if first.round == 0:
        return target.is_better(best, first.value)
    return bar is not None or not target.is_better(first.value, best)


def learned_from(target: Target, participants: Participants) -> float | None:
    """The accuracy from which a model has learned something; None where chance is not known."""
    if participants.chance is None or target != Target():
        return None
    return participants.chance + _LEARNED * (1 - participants.chance)


def _n_evaluated(rows: Sequence[RoundRow]) -> int:
    return sum(row.value is not None for row in rows)


def _outcome(
    config: RunConfig, rows: Sequence[RoundRow], participants: Participants, learned: bool
) -> str:
    target, final = rows[-1].target, final_value(rows)
    if final is None:
        return "Nothing was evaluated."
    name, show = target.name, target.printed
    last_held = next((value for value in reversed(held_values(rows)) if value is not None), None)
    holds = "" if last_held is None else f"mean of the last three rounds {show(last_held)}, "
    values = f"final {name} {show(final)} ({holds}best {show(best_value(rows))})"
    budgets = spent_budgets(config, rows).items()
    ends = "".join(f" The budget of {spoken(budget, unit)} is spent." for unit, budget in budgets)
    if back := [row.round for row in rows if row.entry is not None and row.entry.went_back]:
        ends += (
            f" It diverged, and went back to its best model in round {', '.join(map(str, back))}."
        )
    if not learned and rows[-1].round:
        chance = (
            f"; guessing gives {participants.chance:.3f}"
            if participants.chance and name == "accuracy"
            else ""
        )
        return f"Nothing was learned: {values}{chance}.{ends}"
    level = next(reversed(goal_levels(config, target)), None)
    if level is None:
        return f"No target was set: {values}.{ends}"
    first = next((row.round for row in rows if target.reached(row.value, level)), None)
    if last_held is not None and target.reached(last_held, level):
        return f"Reached {name} {level:g} in round {first} and holds it: {values}."
    if first is not None:
        return f"Reached {name} {level:g} in round {first} but does not hold it: {values}."
    return f"Did not reach {name} {level:g}: {values}.{ends}"


def _course(rows: Sequence[RoundRow]) -> str:
    """Whether what is held still gets better: over the last rounds, beside all that was gained."""
    target = rows[-1].target
    held = [(row.round, v) for row, v in zip(rows, held_values(rows), strict=True) if v is not None]
    if len(held) <= _WINDOW:
        return ""
    sign = 1 if target.rises else -1
    best_round, best = max(held, key=lambda pair: sign * pair[1])
    gained = sign * (best - held[0][1])
    gain = sign * (held[-1][1] - held[-1 - _WINDOW][1])
    if gain > _GAIN * gained:
        return "It was still improving."
    if sign * (best - held[-1][1]) > _LEARNED * gained:
        return f"It got worse after round {best_round}, when it held {target.printed(best)}."
    return f"It has not improved in the last {_WINDOW} rounds (a plateau)."


def _participation(
    config: RunConfig,
    rows: Sequence[RoundRow],
    trained: Mapping[int, int],
    participants: Participants,
) -> str:
    entries = [row.entry for row in rows if row.entry is not None]
    if not entries:
        return ""
    took = sum(entry.reported for entry in entries) / len(entries)
    asked = {client for entry in entries for client in entry.clients}
    who = {client for client, times in trained.items() if times}
    n = max([participants.clients, config.min_nodes, *(client + 1 for client in asked | who)])
    text = (
        f"{took:.1f} clients a round on average (at most {config.per_round}); "
        f"{len(who):,} of {n:,} have trained"
    )
    never = [client for client in range(n) if client not in who]
    if not never:
        return f"{text}."
    reasons = participants.reasons(never)
    told = {client for clients in reasons.values() for client in clients}
    silent = [client for client in never if client in asked - told]
    unasked = [client for client in never if client not in asked | told]
    why = [participants.told(reasons)] if reasons else []
    why += [f"{participants.named(silent)} (asked, but sent nothing)"] if silent else []
    why += [f"{participants.named(unasked)} (never selected)"] if unasked else []
    return f"{text}, {len(never):,} never: {'; '.join(why)}."


def _advice(
    config: RunConfig,
    rows: Sequence[RoundRow],
    participants: Participants,
    learned: bool,
    course: str,
) -> str:
    target, tries = rows[-1].target, []
    levels = goal_levels(config, target)
    held = best_held(rows)
    falls_short = bool(levels) and (held is None or not target.reached(held, levels[-1]))
    if not learned:
        tries.append(
            "more --local-epochs, more clients a round (--per-round) or another --learning-rate"
        )
    elif falls_short and "worse" in course:
        tries.append("a smaller --learning-rate or fewer --local-epochs")
    elif falls_short and "plateau" in course:
        tries.append("more clients a round (--per-round), more --local-epochs or another strategy")
    elif (falls_short or not levels) and "still" in course:
        tries.append(_longer(config, rows))
    entries = [row.entry for row in rows if row.entry is not None]
    took = sum(entry.reported for entry in entries) / max(len(entries), 1)
    able = participants.clients - participants.n_unable
    if config.strategy == "pace" and falls_short and took < min(config.per_round, able) / 2:
        tries.append('"pace(price=10)", which takes more clients a round')
    if participants.reasons().keys() & {"power limit", "latency"}:
        tries.append("higher power limits for clients that cannot keep theirs")
    return f"Try {'; or '.join(tries)}." if tries else ""


def _longer(config: RunConfig, rows: Sequence[RoundRow]) -> str:
    """How a run goes on that was still getting better when it ended."""
    for unit, budget in spent_budgets(config, rows).items():
        return (
            f"a larger budget (--budget-{unit.lower()} {2 * budget:g} --resume continues the run)"
        )
    return f"more rounds (--rounds {2 * rows[-1].round} --resume continues the run)"


def common_level(results: Sequence[FederationResult]) -> float | None:
    """The level of the target up to which runs are compared: the goal, or what all of them hold.

    None if one of them holds nothing that it has learned: then there is nothing to compare.
    """
    if not all(has_learned(result.rows, result.participants) for result in results):
        return None
    levels = goal_levels(results[0].config, results[0].target)
    return held_by_all([result.rows for result in results], levels[-1] if levels else None)


def energy_factors(mine: Spending, theirs: Spending) -> dict[str, float]:
    """What the ratio of their energy to mine is made of; the factors' product is the ratio."""
    return {
        "fewer_minibatches": theirs.minibatches / mine.minibatches,
        "fewer_joules_per_minibatch": theirs.minibatch_j / mine.minibatch_j,
        "less_waiting": theirs.waiting_factor / mine.waiting_factor,
    }


def times_less(ratio: float, what: str) -> str:
    """How many times as much another took, in words: ``2.20 times less energy``."""
    return f"{ratio:.2f} times less {what}" if ratio >= 1 else f"{1 / ratio:.2f} times more {what}"


def comparison(
    ours: FederationResult,
    other: FederationResult,
    level: float | None,
    names: Sequence[str] = (),
) -> list[str]:
    """In words: energy and time of both until a level that both hold, and why they differ.

    They are called by their policies, where no names are given.
    """
    runs, target = (ours, other), ours.target
    names = names or [Contender.of(run.config).policy for run in runs]
    finals = ", ".join(
        f"{name} {target.printed(final_value(run.rows))}"
        for name, run in zip(names, runs, strict=True)
    )
    if level is None:
        return [
            f"{names[0]} and {names[1]} cannot be compared: there is no {target.name} that both "
            f"have learned and hold over three rounds (final: {finals})."
        ]
    mine, theirs = (spending_to(r.rows, r.minibatches, level) for r in runs)
    ratio = theirs.energy_j / mine.energy_j
    lines = [
        f"To hold {target.name} {target.printed(level)} (mean of three rounds; final: {finals}), "
        f"{names[0]} used {times_less(ratio, 'energy')} than {names[1]}: "
        f"{spoken(mine.energy_j, 'J')} against {spoken(theirs.energy_j, 'J')}, in "
        f"{spoken(mine.time_s, 's')} against {spoken(theirs.time_s, 's')}. One seed cannot say how "
        "sure this is."
    ]
    factors = energy_factors(mine, theirs)
    work, joules, waiting = factors.values()
    boards = _boards_factor(mine, theirs, ours, other)
    parts = [(work, "number of minibatches")]
    if boards is None:
        parts.append((joules, "energy of a minibatch: boards and modes"))
    else:
        parts.append((boards, "boards that need less energy"))
        parts.append((joules / boards, "modes that need less energy, cold starts"))
    parts.append((waiting, "waiting, transfers, overhead"))
    product = " x ".join(f"{factor:.2f} ({what})" for factor, what in parts)
    lines.append(f"  {ratio:.2f} = {product}")
    modes = ours.participants.modes
    if modes is not None:
        least, most = (f"{ratio:.2f}" for ratio in modes)
        share = least if least == most else f"{least} to {most}"
        lines.append(
            f"  Within its limits, a client needs at least {share} times the energy of MAXN, which "
            f"ignores limits, for a minibatch of {ours.charged}."
        )
    return lines


def _boards_factor(
    mine: Spending, theirs: Spending, ours: FederationResult, other: FederationResult
) -> float | None:
    """Their joules per minibatch over mine if all had trained at MAXN: of the boards alone."""
    means = []
    for run, spent in ((ours, mine), (other, theirs)):
        participants = run.participants
        total_j = 0.0
        for number, report in run.ledger.reports:
            if number <= spent.rounds and report.minibatches:
                group = participants.group_of(report.client)
                if group is None:
                    return None
                total_j += report.minibatches * group.maxn_j
        means.append(total_j / max(spent.minibatches, 1))
    return means[1] / means[0]
