"""Builds the report of a folder: of a comparison, or of one run and its baselines.

`content` arranges what it says, `charts` draws, `chart_files` writes what is drawn as files of its
own; the words and the looks are in `templates`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from io import StringIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.statistics import Estimate
from wattfed.server.comparison.chart_files import write_charts
from wattfed.server.comparison.content import Content, RunView, arrange, run_view
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.comparison.grid import REPLACED, Comparison, run_command
from wattfed.server.comparison.measures import RunMeasures
from wattfed.server.comparison.table import chosen_baseline
from wattfed.server.run.history import FederationResult, best_value, goal_levels
from wattfed.server.run.judging import common_level
from wattfed.server.run.results import is_finished, read_run

_TEMPLATES = resources.files("wattfed.server.comparison") / "templates"
_NONE = "\N{EN DASH}"


def build_report(folder: Path, baseline: str = "") -> Path:
    """Write ``report.html``, its charts and tables of the runs into a folder; the page's path.

    The tables are ``runs.csv`` and ``runs.jsonl``, the charts ``charts/NAME.svg`` and ``.csv``.

    Parameters
    ----------
    folder : Path
        Of `wattfed compare`, finished or not, or of a run.
    baseline : str
        ``STRATEGY:POWER`` that ratios are to; by default random at MAXN, or the first.

    Raises
    ------
    InvalidInput
        If there is no run to report on, or a file is damaged.
    """
    if (folder / "comparison.json").exists():
        return _of_comparison(ComparisonFolder(folder), baseline)
    if (folder / "config.json").exists():
        return _of_run(folder, baseline)
    raise InvalidInput(
        f"{folder}: neither a comparison nor a run; give the folder of wattfed compare, or RUN in "
        "runs/RUN of wattfed simulate"
    )


def _of_comparison(folder: ComparisonFolder, baseline: str) -> Path:
    comparison, n_clients = folder.asked()
    views = [
        run_view(result, n_clients, comparison.targets) for result in folder.results(comparison)
    ]
    if not views:
        raise InvalidInput(f"{folder.path}: no run has finished yet; wait for wattfed compare")
    return _write(folder.path, comparison, views, baseline, comparison.commands(str(folder.path)))


def _of_run(folder: Path, baseline: str) -> Path:
    """A run, beside those it was simulated against."""
    others = sorted(path for path in folder.glob("against-*") if is_finished(path))
    results = [read_run(path) for path in (folder, *others)]
    config, target = results[0].config, results[0].target
    asked = goal_levels(config, target)
    levels = asked or [_without_goal(results)]
    comparison = Comparison(
        base=config,
        strategies=tuple(dict.fromkeys(result.config.strategy for result in results)),
        powers=tuple(dict.fromkeys(result.config.power for result in results)),
        per_round=(config.per_round,),
        seeds=(config.seed,),
        targets=tuple(levels),
        metric=target.name,
    )
    n_clients = max(_known_clients(result) for result in results)
    views = [run_view(result, n_clients, comparison.targets) for result in results]
    if not asked and common_level(results) is not None:
        views = [replace(v, measures=(v.measures[0].until_held(levels[0]),)) for v in views]
    groups = results[0].participants.groups
    is_simulated = all(group.node is None for group in groups)
    against = [result.config for result in results[1:]]
    command = run_command(config, against, is_simulated=is_simulated)
    return _write(folder, comparison, views, baseline, [command], is_comparison=False)


def _without_goal(results: Sequence[FederationResult]) -> float:
    """Where runs without a goal are compared: at what all hold, else at what all came to."""
    held = common_level(results)
    if held is not None:
        return held
    bests = [best_value(result.rows) for result in results]
    known = [value for value in bests if value is not None and math.isfinite(value)]
    return results[0].target.easiest_first(known)[0] if known else 0.0


def _known_clients(result: FederationResult) -> int:
    """Clients of a run's fleet: those it waited for, and at least all that were seen."""
    seen = [report.client + 1 for _, report in result.ledger.reports]
    return max([result.config.min_nodes, *seen])


def _write(
    folder: Path,
    comparison: Comparison,
    views: Sequence[RunView],
    baseline_text: str,
    commands: list[str],
    is_comparison: bool = True,
) -> Path:
    measures = [measure for view in views for measure in view.measures]
    base = comparison.base.to_flower()
    left_out = REPLACED if is_comparison else ()
    content = arrange(
        views,
        chosen_baseline(baseline_text, measures),
        config=comparison.base,
        settings={key: value for key, value in base.items() if key not in left_out},
        commands=commands,
        folder=str(folder),
        seeds=len(comparison.seeds),
        wanted=len(comparison.runs()) if is_comparison else len(views),
    )
    _write_tables(folder, measures)
    path = folder / "report.html"
    write_output(path, render(content))
    write_charts(folder / "charts", content, environment())
    return path


def _write_tables(folder: Path, measures: Sequence[RunMeasures]) -> None:
    rows = [measure.record() for measure in measures]
    write_output(folder / "runs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    table = StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_output(folder / "runs.csv", table.getvalue())


def render(content: Content) -> str:
    """The page as HTML, complete in itself."""
    return environment().get_template("report.html.j2").render(content=content)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates of the report, with its filters: other pages take them too."""
    made = Environment(
        loader=PackageLoader("wattfed.server.comparison"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=_number, spread=_spread, span=_span, percent=_percent)
    made.tests["known"] = math.isfinite
    made.globals["included"] = _included
    return made


def _included(name: str) -> Markup:
    """A file of ours as it is: the style sheet or the script."""
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _number(value: float | None) -> str:
    """Three significant digits, thousands in full; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return _NONE
    return f"{value:,.{_decimals(value)}f}"


def _spread(estimate: Estimate, unit: float = 1.0) -> str:
    """Half the width of an interval, such as "± 2.1"; nothing where there is no interval."""
    half = (estimate.high - estimate.mean) / unit
    decimals = _decimals(estimate.mean / unit)
    return f"± {half:,.{decimals}f}" if math.isfinite(half) else ""


def _decimals(value: float) -> int:
    """Behind the point, for three significant digits."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0


def _span(estimate: Estimate) -> str:
    """An interval, such as "1.3 to 2.1"; nothing where there is none."""
    if not math.isfinite(estimate.low):
        return ""
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def _percent(value: float) -> str:
    """A share in whole percent; a dash for what is not known."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else _NONE
