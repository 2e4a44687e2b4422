"""Writes the page: numbers as people read them, and the template's files."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from powerctl.statistics import Estimate
from wattfed.server.comparison.content import Content

_TEMPLATES = resources.files("wattfed.server.comparison") / "templates"
_NONE = "\N{EN DASH}"


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
