"""The page on a run: what stands on it, drawn with the charts and templates of the report."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup

from wattfed.server.comparison.charts import Chart, Series, line_chart
from wattfed.server.comparison.content import Curve, Look, target_charts
from wattfed.server.comparison.report import environment
from wattfed.server.live.snapshot import ClientAccount, RoundWork, Snapshot, run_state, under_way
from wattfed.server.run.history import TROUBLES, RoundRow, best_value, final_value, troubles_of

ROUNDS, CLIENTS = 100, 100  # in the page's tables
_MEASURED, _PREDICTED = "measured", "predicted"
_FILES = resources.files("wattfed.server.live") / "templates"


@dataclass(frozen=True)
class View:
    """All of the page below its head.

    Attributes
    ----------
    now : Snapshot
        The run.
    charts, cost_charts : list of Chart
        The target over time, energy and rounds; training as predicted and measured.
    looks : mapping of str to Look
        How each line of the charts is drawn.
    levels : sequence of float
        Of the target, which the run shall reach.
    rounds : list of RoundRow
        At most `ROUNDS`, the last ones, newest first.
    clients : list of ClientAccount
        At most `CLIENTS`, those asked last.
    troubles : list of (str, int)
        What went wrong, and how often.
    """

    now: Snapshot
    charts: list[Chart]
    cost_charts: list[Chart]
    looks: Mapping[str, Look]
    levels: Sequence[float]
    rounds: list[RoundRow]
    clients: list[ClientAccount]
    troubles: list[tuple[str, int]]


def page_view(now: Snapshot) -> View:
    """What the page shows of a snapshot."""
    name, summary = now.policy, now.summary
    levels = now.config.goal.levels if now.config.goal else ()
    return View(
        now=now,
        charts=target_charts({name: [Curve.of(now.rows)]}, now.target, levels) if now.rows else [],
        cost_charts=_cost_charts(now.work),
        looks={name: Look(1, ""), _MEASURED: Look(1, ""), _PREDICTED: Look(2, "5 4")},
        levels=levels,
        rounds=list(now.rows[: -ROUNDS - 1 : -1]),
        clients=now.heard_last(CLIENTS),
        troubles=[(what, summary[key]) for key, what in TROUBLES] if summary else [],
    )


def render_page(now: Snapshot) -> str:
    """The whole page as HTML, complete in itself."""
    files = {name: Markup(_text(f"live.{name}")) for name in ("css", "js")}
    return _render("live.html.j2", now, **files)


def render_view(now: Snapshot) -> str:
    """The part of the page that changes while the run goes on."""
    return _render("view.html.j2", now)


@lru_cache(maxsize=1)
def script_hash() -> str:
    """The page's script as a Content-Security-Policy names it."""
    digest = hashlib.sha256(_text("live.js").encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _render(template: str, now: Snapshot, **more: Any) -> str:
    return _environment().get_template(template).render(view=page_view(now), **more)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    shared = environment()
    assert shared.loader is not None
    loader = ChoiceLoader([PackageLoader("wattfed.server.live"), shared.loader])
    made = shared.overlay(loader=loader)
    made.filters.update(off=_off, state=run_state, troubles=troubles_of, under_way=under_way)
    made.filters.update(best=best_value, final=final_value)
    made.tests["finite"] = math.isfinite
    return made


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _off(measured: float, expected: float) -> str:
    """By how much a prediction was exceeded, such as "+3 %"."""
    return f"{round(100 * (measured / expected - 1)):+d} %" if expected else ""


def _cost_charts(work: Mapping[int, RoundWork]) -> list[Chart]:
    if not work:
        return []
    rounds = sorted(work)
    return [
        _cost_chart(work, rounds, "Training energy of a round", "kilojoules", "energy_j", 1e3),
        _cost_chart(work, rounds, "Longest training of a round", "seconds", "time_s", 1.0),
    ]


def _cost_chart(
    work: Mapping[int, RoundWork],
    rounds: Sequence[int],
    title: str,
    y_label: str,
    field: str,
    unit: float,
) -> Chart:
    series = []
    for name, prefix in ((_PREDICTED, "expected_"), (_MEASURED, "")):
        values = np.array([getattr(work[n], prefix + field) / unit for n in rounds])
        series.append(Series(name, np.array(rounds, dtype=float), values, values, values))
    highest = max(float(s.high.max()) for s in series) or 1.0
    return line_chart(f"{title} ({y_label})", "rounds", series, (0.0, 1.05 * highest))
