"""What a study found, in words: only what its intervals support, and what they leave open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import log2

from powerctl.characterization.results import FIRST, LATER, METRICS
from powerctl.characterization.study import CACHE, Effect, Slice, Study
from powerctl.statistics import spoken_number

MARGIN = 0.05  # a gain below this is none: per doubling of a batch, per more workers
_MARGIN = f"{100 * MARGIN:g} %"
_FOLD = 2.0  # a change to more than this is told as a multiple
_LEAST_CHANGE = 0.005  # not worth words, however sure
_LEAST_STALL = 0.01  # of a minibatch: a stall that changes by less changes nothing


@dataclass(frozen=True)
class Finding:
    """A sentence; `decided` is False for what the data leaves open."""

    text: str
    decided: bool = True


def findings(study: Study) -> list[Finding]:
    """All that can be said, factor by factor."""
    found: list[Finding] = []
    for each in study.slices:
        said = _OF[each.factor.name](study, each)
        prefix = f"with {each.context}: " if each.context else ""
        found += [Finding(_sentence(prefix + text), decided) for text, decided in said]
    found += [
        Finding(_sentence(_cold(study, effect)))
        for effect in study.effects
        if effect.factor == CACHE and _matters(study, effect) and effect.ratio.value > 1
    ]
    return found


Said = list[tuple[str, bool]]


def _workers(study: Study, each: Slice) -> Said:
    said = _pipelining(study, each, "workers")
    enough = _enough(study, each)
    return said + ([(enough, True)] if enough else [])


def _storage(study: Study, each: Slice) -> Said:
    said: Said = []
    first = each.cells[0]
    for cell in each.cells[1:]:
        what = f"storage {_level(each, first)} → {_level(each, cell)}"
        cold = _changes(study, first, cell, FIRST)
        warm = _changes(study, first, cell, LATER)
        later = study.effect(first, cell, "epoch", LATER)
        if cold and not warm and later is not None and later.ratio.within(MARGIN):
            said.append(
                (
                    f"storage matters in the first epoch only: {_level(each, first)} → "
                    f"{_level(each, cell)} {_listed(cold)} there; later epochs differ by "
                    f"less than {_MARGIN} ({later.ratio})",
                    True,
                )
            )
        elif cold or warm:
            parts = [f"{_listed(cold)} in the first epoch"] if cold else []
            parts += [f"{_listed(warm)} in later epochs"] if warm else []
            said.append((f"{what} {', '.join(parts)}", True))
        else:
            said.append(_open(what, study.effect(first, cell, "epoch", FIRST), "the first epoch"))
    return said


def _mode(study: Study, each: Slice) -> Said:
    said: Said = []
    for cell in each.cells:
        names = study.named(cell)
        if "MAXN" in names:
            said += _against_maxn(study, each, cell)
        if "default" in names:
            said += _front(study, each, cell)
    return said


def _observer(study: Study, each: Slice) -> Said:
    effect = study.effect(each.cells[0], each.cells[-1], "epoch", LATER)
    if effect is None:
        return []
    if effect.holds and effect.ratio.value > 1 + _LEAST_CHANGE:
        return [(f"observing lengthens epochs by {_change(effect)}; that is not subtracted", True)]
    if effect.ratio.within(MARGIN):
        return [(f"observing changes epochs by less than {_MARGIN} ({effect.ratio})", True)]
    return [_open("the observer", effect, "epoch")]


def _pipelining(study: Study, each: Slice, what: str) -> Said:
    """From the lowest level to the one of the shortest epochs."""
    first = each.cells[0]
    best = min(each.cells[1:], key=lambda c: study.estimate(c, "epoch", LATER).mean)
    name = f"{what} {_level(each, first)} → {_level(each, best)}"
    changes = _changes(study, first, best, LATER)
    if changes:
        return [(f"{name} {_listed(changes)}", True)]
    effects = [study.effect(first, cell, "epoch", LATER) for cell in each.cells[1:]]
    if all(effect is not None and effect.ratio.within(MARGIN) for effect in effects):
        levels = f"{_level(each, first)} to {_level(each, each.cells[-1])}"
        return [(f"{what} {levels} make no difference of {_MARGIN} to epochs", True)]
    return [_open(name, study.effect(first, best, "epoch", LATER), "epoch")]


def _enough(study: Study, each: Slice) -> str:
    """From which level on more gain less than the margin."""
    *fewer, most = each.cells[1:]
    for cell in fewer:
        effect = study.effect(cell, most, "epoch", LATER)
        if effect is None or not effect.ratio.low > 1 - MARGIN:
            continue
        name = f"workers {_level(each, cell)} → {_level(each, most)}"
        if _sure(effect):
            return f"{name} {_changed(effect, 'epochs')}"
        return f"{name} shorten epochs by less than {_MARGIN} ({effect.ratio})"
    return ""


def _saturation(study: Study, each: Slice, what: str) -> Said:
    """Up to which size the device computes more samples a second."""
    steps = [
        (effect, _doublings(effect))
        for a, b in zip(each.cells, each.cells[1:], strict=False)
        if (effect := study.effect(a, b, "compute-rate", LATER)) is not None
    ]
    if not steps:
        return []
    flat = 0
    for effect, doublings in reversed(steps):
        if effect.ratio.high >= (1 + MARGIN) ** doublings:
            break
        flat += 1
    if flat:
        effect = steps[-flat][0]
        size = _level(each, effect.before)
        if all(e.ratio.high < 1 for e, _ in steps[-flat:]) and effect.holds:
            tail = f"beyond it fewer: {_steps(effect)}"
        else:
            tail = f"doubling it adds less than {_MARGIN}: {_steps(effect)}"
        return [(f"{what} {size} saturates the samples a second of compute; {tail}", True)]
    effect = steps[-1][0]
    if effect.holds and effect.ratio.value > 1 + MARGIN:
        return [(f"{what} {_level(each, effect.after)} does not saturate: {_steps(effect)}", True)]
    return [_open(f"whether {what} {_level(each, effect.before)} saturates", effect, "rate")]


_OF: dict[str, Callable[[Study, Slice], Said]] = {
    "workers": _workers,
    "prefetch": partial(_pipelining, what="prefetch"),
    "storage": _storage,
    "batch": partial(_saturation, what="batch"),
    "mode": _mode,
    "infer-batch": partial(_saturation, what="inference batch"),
    "observer": _observer,
}


def _against_maxn(study: Study, each: Slice, cell: object) -> Said:
    """Whether MAXN is the fastest, and the leanest."""
    said: Said = []
    for metric, best, verb in (
        ("epoch", "fastest", "less time"),
        ("energy", "leanest", "less energy"),
    ):
        effects = [
            e
            for e in study.effects
            if e.before == cell and e.metric == metric and e.factor == "mode"
        ]
        if not effects:
            continue
        least = min(effects, key=lambda e: e.ratio.value)
        if _sure(least) and least.ratio.value < 1:
            text = f"MAXN is not the {best}: {_level(each, least.after)} takes "
            text += _change(least, verb)
            other = study.effect(least.before, least.after, "epoch", LATER)
            if metric == "energy" and other is not None and _sure(other):
                more = "more" if other.ratio.value > 1 else "less"
                text += f", for {_percent(other.ratio.value)} {more} time"
            said.append((text, True))
        elif all(_sure(e) and e.ratio.value > 1 for e in effects):
            said.append((f"MAXN is the {best} of the {len(effects) + 1} modes", True))
        else:
            said.append(_open(f"whether MAXN is the {best}", least, metric))
    return said


def _front(study: Study, each: Slice, cell: object) -> Said:
    """Whether the default mode is on the front of time and energy."""
    others = [other for other in each.cells if other != cell]
    name = next(_level(each, c) for c in each.cells if c == cell)
    pairs = []
    for other in others:
        time = next((e for e in study.effects if _is(e, cell, other, "epoch")), None)
        energy = next((e for e in study.effects if _is(e, cell, other, "energy")), None)
        if time is None or energy is None:
            return []
        pairs.append((time, energy))
    beating = [p for p in pairs if all(_sure(e) and e.ratio.value < 1 for e in p)]
    if beating:
        time, energy = min(beating, key=lambda p: p[1].ratio.value)
        return [
            (
                f"the default mode {name} is not on the front of time and energy: "
                f"{_level(each, time.after)} takes {_change(time, 'less time')} and "
                f"{_change(energy, 'less energy')}",
                True,
            )
        ]
    if all(any(_sure(e) and e.ratio.value > 1 for e in p) for p in pairs):
        return [(f"the default mode {name} is on the front of time and energy of these", True)]
    return [(f"whether the default mode {name} is on the front is not decided", False)]


def _is(effect: Effect, before: object, after: object, metric: str) -> bool:
    return (effect.before, effect.after, effect.metric) == (before, after, metric)


def _cold(study: Study, effect: Effect) -> str:
    where = effect.before.storage or "its storage"
    r = effect.ratio
    times, low, high = map(spoken_number, (r.value, r.low, r.high))
    return (
        f"the first epoch, from a cold cache, waits {times} times as long for data as later ones "
        f"(95 % CI {low} to {high}; {where})"
    )


def _changes(study: Study, before: object, after: object, when: str) -> list[str]:
    """What surely changes, such as ``cut fetch stalls by 92 % (...)``."""
    said = []
    for metric, noun in (("stall", "fetch stalls"), ("epoch", "epochs"), ("energy", "energy")):
        for effect in study.effects:
            if effect.factor == CACHE or effect.when != when:
                continue
            if _is(effect, before, after, metric) and _matters(study, effect):
                said.append(_changed(effect, noun))
    return said


def _changed(effect: Effect, noun: str) -> str:
    """Such as ``cut fetch stalls by 92 % (95 % CI 88 to 95 %), from 51 to 4.1 ms``."""
    r, unit = effect.ratio, METRICS[effect.metric].unit
    if r.value < _FOLD:
        text = f"{'cut' if r.value < 1 else 'raise'} {noun} by {_change(effect)}"
    else:
        value, low, high = map(spoken_number, (r.value, r.low, r.high))
        text = f"raise {noun} {value}-fold (95 % CI {low} to {high})"
    if effect.metric == "stall":
        before, after = map(spoken_number, (effect.before_mean, effect.after_mean))
        text += f", from {before} to {after} {unit} a minibatch"
    return text


def _matters(study: Study, effect: Effect) -> bool:
    """Whether an effect is sure, and large enough to be told."""
    if not _sure(effect):
        return False
    if effect.metric != "stall":
        return True
    compute = study.estimate(effect.before, "compute", LATER).mean
    return abs(effect.after_mean - effect.before_mean) > _LEAST_STALL * (
        compute + max(effect.before_mean, effect.after_mean)
    )


def _sure(effect: Effect) -> bool:
    return effect.holds and abs(effect.ratio.value - 1) >= _LEAST_CHANGE


def _change(effect: Effect, of_what: str = "") -> str:
    """How much, with its interval: ``92 % (95 % CI 88 to 95 %)``."""
    r = effect.ratio
    low, high = sorted((r.low, r.high), key=lambda end: abs(end - 1))
    much = f"{_percent(r.value)} {of_what}".rstrip()
    return f"{much} (95 % CI {_percent(low).removesuffix(' %')} to {_percent(high)})"


def _percent(value: float) -> str:
    share = abs(value - 1)
    return f"{100 * share:.3g} %" if value > 0.005 else f"{100 * share:.4g} %"


def _steps(effect: Effect) -> str:
    return f"{effect.before.batch_size} → {effect.after.batch_size} {effect.ratio}"


def _doublings(effect: Effect) -> float:
    return log2(effect.after.batch_size / effect.before.batch_size)


def _open(what: str, effect: Effect | None, of: str) -> tuple[str, bool]:
    if effect is None or effect.ratio.p != effect.ratio.p:
        return f"{what}: intervals need at least 2 repetitions", False
    return f"{what}: not decided ({of} {effect.ratio})", False


def _level(each: Slice, cell: object) -> str:
    found = next(c for c in each.cells if c == cell)
    return each.factor.shown(each.factor.level(found))


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
