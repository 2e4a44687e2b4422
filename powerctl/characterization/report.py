"""The report of a study, in Markdown and as one HTML page: findings, plots, tables, and how."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from markdown_it import MarkdownIt

from powerctl.characterization.drawing import drawn
from powerctl.characterization.findings import MARGIN, Finding, findings
from powerctl.characterization.plan import Cell, described
from powerctl.characterization.results import FIRST, LATER, METRICS
from powerctl.characterization.study import Slice, Study
from powerctl.characterization.study_log import StudyLog
from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.statistics import spoken_number

_COLUMNS = (  # of the tables of factors
    *(("epoch", FIRST), ("epoch", LATER), ("stall", FIRST), ("stall", LATER)),
    *(("compute", LATER), ("rate", LATER), ("power", LATER)),
    *(("energy", LATER), ("sample-energy", LATER)),
)
_USE = ("stall-p95", "compute-p95", "cpu", "gpu", "memory", "read", "observer")
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 74rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h1, h2 { color: #16324f; overflow-wrap: anywhere; }
table { display: block; overflow-x: auto; border-collapse: collapse; font-size: 0.85rem;
        max-width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #e2e2e2; }
td { white-space: nowrap; }
th { text-align: left; vertical-align: bottom; border-bottom: 2px solid #999; }
img { display: block; width: 100%; max-width: 36rem; height: auto; margin: 0.8rem 0; }
li { margin: 0.35rem 0; }
"""


def write_report(log: StudyLog, folder: Path) -> list[str]:
    """Write ``report.md``, its plots, and ``report.html``; returns the paths of the two."""
    study = log.study()
    said = findings(study)
    pictures = {
        f"plots/{number:02d}-{each.factor.name}.png": drawn(study, each)
        for number, each in enumerate(study.slices, start=1)
    }
    text = "\n".join(
        [
            f"# What it costs: {log.header['name']}\n",
            *_said(said),
            *_by_factor(study, list(pictures)),
            *_use(study),
            *_method(log, study),
        ]
    )
    return write_pages(folder, "report", f"characterize: {log.header['name']}", text, pictures)


def write_pages(
    folder: Path, name: str, title: str, text: str, pictures: Mapping[str, bytes]
) -> list[str]:
    """Write a Markdown text with its pictures, and the page of both; returns their paths."""
    contents: dict[str, str | bytes] = {
        **pictures,
        f"{name}.html": page(title, text, pictures),
        f"{name}.md": text,
    }
    try:
        for place in {(folder / content).parent for content in contents}:
            place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be written: {error.strerror}") from None
    for content, whole in contents.items():
        write_output(folder / content, whole)
    return [str(folder / f"{name}{ending}") for ending in (".html", ".md")]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table: the first column to the left, numbers to the right."""
    rule = [":---"] + ["---:"] * (len(header) - 1)
    lines = [" | ".join(("", *cells, "")).strip() for cells in (header, rule, *rows)]
    return [*lines, ""]


def _said(said: Sequence[Finding]) -> list[str]:
    lines = ["## Findings\n"]
    lines += [f"- {each.text}" for each in said if each.decided] or ["Nothing is decided."]
    left = [each.text for each in said if not each.decided]
    if left:
        lines += ["\nLeft open by the data:\n", *(f"- {text}" for text in left)]
    return [*lines, ""]


def _by_factor(study: Study, pictures: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for each, picture in zip(study.slices, pictures, strict=True):
        title = each.factor.title[0].upper() + each.factor.title[1:]
        context = f", with {each.context}" if each.context else ""
        lines += [f"## {title}{context}\n", f"![{title}]({picture})\n"]
        lines += _table_of(study, each)
    return lines


def _table_of(study: Study, each: Slice) -> list[str]:
    columns = [column for column in _COLUMNS if study.measures(column[0])]
    header = [each.factor.title, *(f"{_headed(metric)}, {when}" for metric, when in columns)]
    rows = [
        [
            each.factor.shown(each.factor.level(cell)),
            *(_interval(study, cell, metric, when) for metric, when in columns),
        ]
        for cell in each.cells
    ]
    return table(header, rows)


def _use(study: Study) -> list[str]:
    """Of every cell: what else it used, and how its epochs scattered."""
    metrics = [metric for metric in _USE if study.measures(metric)]
    header = ["cell", "runs", *map(_headed, metrics), "scatter of runs (%)", "of epochs (%)"]
    rows = []
    for cell in study.cells:
        values = [study.estimate(cell, metric, LATER).mean for metric in metrics]
        of_runs = _scatter(study.values(cell, "epoch", LATER))
        epochs = [[epoch.seconds for epoch in run.epochs[1:]] for run in study.runs[cell]]
        of_epochs = [_scatter(seconds) for seconds in epochs if len(seconds) > 1]
        scatters = [of_runs, fmean(of_epochs) if of_epochs else math.nan]
        name = described(cell, study.baseline) or "baseline"
        rows.append([name, str(len(study.runs[cell])), *map(_number, (*values, *scatters))])
    text = (
        "Later epochs. Scatter is the standard deviation of an epoch's time, relative to its mean: "
        "between runs, and between the later epochs of a run.\n"
    )
    return ["## What else each cell used, and its variability\n", text, *table(header, rows)]


def _method(log: StudyLog, study: Study) -> list[str]:
    repetitions = max(map(len, study.runs.values()), default=0)
    baseline = described(study.baseline, Cell(storage="", workers=0, batch_size=1))
    lines = ["## How it was measured\n"]
    lines += [f"- **{name}**: {text}" for name, text in log.header["facts"].items()]
    lines += [
        f"\nEach cell ran up to {repetitions} times, in a random order in each repetition, with "
        f"{log.header['epochs']} epochs a run: the first from a cold page cache (see the facts), "
        "later ones apart from it. Baseline: " + baseline + ". The rest varies one factor of it, "
        "or, in a grid, several.\n",
        "A fetch stall is the time around the iterator's `next`, worker start and the end of the "
        "epoch included; compute is from then until the device has done all that was launched. "
        "Disc reads are the kernel's account of the process and its workers. Processor use has the "
        "observer's own share subtracted; its time is in the table above and is not subtracted "
        "from epochs.\n",
        "Intervals are 95 %, Student's over repetitions; ratios by Welch's t on logarithms. What "
        "is said as a finding holds for all of the study's comparisons together (Holm); a change "
        f"below {100 * MARGIN:g} % is called no difference where the interval excludes more.\n",
    ]
    if log.header["virtual"]:
        lines.append(
            "This study is of a simulated board: loading is modelled, and time and power of a mode "
            "are from where the facts say. It is no measurement of a Jetson.\n"
        )
    return lines


def _headed(metric: str) -> str:
    title, unit = METRICS[metric].title, METRICS[metric].unit
    return f"{title} ({unit})" if unit else title


def _interval(study: Study, cell: Cell, metric: str, when: str) -> str:
    found = study.estimate(cell, metric, when)
    if math.isnan(found.half_width):
        return _number(found.mean)
    return f"{_number(found.mean)} ± {spoken_number(found.half_width, 2)}"


def _number(value: float) -> str:
    return "" if math.isnan(value) else spoken_number(value)


def _scatter(values: Sequence[float]) -> float:
    return 100 * stdev(values) / fmean(values) if len(values) > 1 else math.nan


def page(title: str, markdown: str, pictures: Mapping[str, bytes]) -> str:
    """The HTML of a Markdown text whose pictures are PNG files of these names."""
    body = str(MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown))
    for name, content in pictures.items():
        inside = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        body = body.replace(f'src="{name}"', f'src="{inside}"')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
