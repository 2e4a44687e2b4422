"""The charts of a report as files of their own: SVG to show, CSV to draw anew."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any

from jinja2 import Environment

from powerctl.durable import write_output
from wattfed.server.comparison.charts import Chart, Tick, ticks
from wattfed.server.comparison.content import Content, Part, RoundView

_VARIABLE = re.compile(r"var\(--(\w+)\)")


@dataclass(frozen=True)
class Row:
    """A line of a bar chart: stretches of a kind from one place to another, in the chart's unit."""

    label: str
    words: str
    stretches: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Bars:
    """A chart of bars below each other; `end` is where its axis ends, in the unit of `x_label`."""

    title: str
    x_label: str
    rows: tuple[Row, ...]
    end: float

    @property
    def x_ticks(self) -> list[Tick]:
        """Places on the axis as shares of it."""
        return [Tick(t / self.end, f"{t:,.10g}") for t in ticks(0.0, self.end)]


def write_charts(folder: Path, content: Content, templates: Environment) -> None:
    """Write every chart of a report as ``NAME.svg`` and ``NAME.csv`` into a folder."""
    folder.mkdir(exist_ok=True)
    template = templates.get_template("chart.svg.j2")

    def write(name: str, head: Sequence[str], rows: Iterable[Sequence[Any]], **drawn: Any) -> None:
        text = template.render(content=content, css=_style(), **drawn)
        write_output(folder / f"{name}.svg", _VARIABLE.sub(lambda m: _colours()[m[1]], text))
        table = StringIO()
        csv.writer(table, lineterminator="\n").writerows([head, *rows])
        write_output(folder / f"{name}.csv", table.getvalue())

    for chart in (*content.charts, *content.charts_of_numbers):
        write(
            chart.slug, ("line", chart.x_label, "mean", "low", "high"), _points(chart), chart=chart
        )
    kinds = [kind for kind, _ in content.parts[0].energies]
    head = ("policy", "per_round", *(f"{kind}_j" for kind in kinds))
    head = (*head, "energy_j", "low_j", "high_j", "wasted_j")
    write("energy", head, map(_energies, content.parts), bars=_energy_bars(content))
    stripes = [
        (part.contender.policy, part.contender.per_round, n * content.clients_in_stripe, value)
        for part in content.parts
        for n, value in enumerate(part.stripes)
    ]
    write("clients", ("policy", "per_round", "client", "times"), stripes, parts_of=content.parts)
    for part in content.parts:
        if part.typical is not None:
            head = ("round", "client", "board", "transfer_s", "train_s", "waiting_s", "power_w")
            rows = _turns(part.typical)
            write(part.round_slug, (*head, "modes", "used"), rows, bars=_round_bars(part, content))


def _points(chart: Chart) -> Iterable[Sequence[Any]]:
    for series in chart.source:
        for values in zip(series.x, series.mean, series.low, series.high, strict=True):
            yield (series.name, *map(float, values))


def _energies(part: Part) -> Sequence[Any]:
    total = part.energy_j
    parts = [joules for _, joules in part.energies]
    whole = (total.mean, total.low, total.high, part.wasted_j)
    return (part.contender.policy, part.contender.per_round, *parts, *whole)


def _turns(view: RoundView) -> Iterable[Sequence[Any]]:
    for turn in view.turns:
        times = (turn.transfer_s, turn.train_s, turn.waiting_s, turn.power_w)
        yield (view.number, turn.client, turn.board, *times, " ".join(turn.modes), turn.used)


def _energy_bars(content: Content) -> Bars:
    rows = []
    for part in content.parts:
        at, stretches = 0.0, []
        for kind, joules in part.energies:
            stretches.append((kind, at / 1e3, (at + joules) / 1e3))
            at += joules
        name = part.name_among(content.has_numbers)
        rows.append(Row(name, f"{part.energy_j.mean / 1e3:.3g} kJ", tuple(stretches)))
    return Bars("How energy divides", "kilojoules", tuple(rows), content.most_energy_j / 1e3)


def _round_bars(part: Part, content: Content) -> Bars:
    view = part.typical
    assert view is not None
    rows = []
    for turn in view.turns:
        half, work = turn.transfer_s / 2, turn.train_s
        kinds = ("transfer", "training" if turn.used else "wasted", "transfer", "waiting")
        ends = [half, half + work, 2 * half + work, 2 * half + work + turn.waiting_s]
        stretches = tuple(zip(kinds, [0.0, *ends], ends, strict=False))
        rows.append(Row(f"{turn.client} {turn.board}", f"{turn.power_w:.3g} W", stretches))
    title = f"{part.contender.policy}: round {view.number}"
    return Bars(title, "seconds", tuple(rows), content.longest_round_s)


@lru_cache(maxsize=1)
def _sheet() -> str:
    found = resources.files("wattfed.server.comparison") / "templates" / "style.css"
    return found.read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _colours() -> dict[str, str]:
    """The colours of a light page by their names in the style sheet, for who knows no variables."""
    light = _sheet().partition("@media")[0]
    return dict(re.findall(r"--(\w+): (#\w+)", light))


def _style() -> str:
    """What the style sheet says of the insides of charts."""
    return "\n".join(line for line in _sheet().splitlines() if line.startswith(".chart ."))
