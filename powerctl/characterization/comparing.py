"""Two studies of the same compared: bare and in a container, or on two discs or releases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from powerctl.characterization.plan import Cell, described
from powerctl.characterization.report import table, write_pages
from powerctl.characterization.results import FIRST, LATER, METRICS
from powerctl.characterization.study import Study
from powerctl.characterization.study_log import StudyLog, study_path
from powerctl.errors import InvalidInput
from powerctl.statistics import CONFIDENCE, LEAST, Ratio, holm, paired_ratio

MARGIN = 0.05  # an overhead below this is called small
_COMPARED = (
    *(("epoch", FIRST), ("epoch", LATER), ("stall", LATER), ("compute", LATER)),
    *(("energy", LATER), ("cpu", LATER), ("memory", LATER)),
)


@dataclass(frozen=True)
class Difference:
    """How much a metric is in the second study of what it is in the first.

    `cell` is None for the geometric mean of all cells. `holds` says that it is no accident: of
    all means, or of all cells and metrics, at 95 % (Holm).
    """

    metric: str
    when: str
    cell: Cell | None
    ratio: Ratio
    holds: bool

    @property
    def title(self) -> str:
        """The metric, and of which epochs."""
        return f"{METRICS[self.metric].title}, {self.when}"


@dataclass(frozen=True)
class StudyComparison:
    """Two studies, by their folders' names, and how they differ where both have the same cells."""

    names: tuple[str, str]
    logs: tuple[StudyLog, StudyLog]
    cells: tuple[Cell, ...]
    repetitions: int
    means: tuple[Difference, ...]
    by_cell: tuple[Difference, ...]

    @property
    def findings(self) -> list[str]:
        """The differences over all cells, a sentence for each metric."""
        return [_sentence(self.names, each) for each in self.means]

    @property
    def differing_facts(self) -> dict[str, tuple[str, str]]:
        """What the studies say differently of machine, software and data."""
        first, second = (log.header["facts"] for log in self.logs)
        return {
            name: (first.get(name, ""), second.get(name, ""))
            for name in dict.fromkeys([*first, *second])
            if first.get(name) != second.get(name)
        }


def compare_studies(first: Path, second: Path) -> StudyComparison:
    """Compare the studies in two folders, over the cells and repetitions that both have.

    Runs of the same repetition are paired: a container's study runs each repetition beside the
    bare one, so that what disturbs both drops out.

    Raises
    ------
    InvalidInput
        If they have nothing in common, or differ in epochs.
    """
    logs = (StudyLog.read(study_path(first)), StudyLog.read(study_path(second)))
    epochs = [log.header["epochs"] for log in logs]
    if epochs[0] != epochs[1]:
        raise InvalidInput(f"{first} has {epochs[0]} epochs a run, {second} has {epochs[1]}")
    studies = (logs[0].study(), logs[1].study())
    cells = tuple(cell for cell in studies[0].cells if cell in studies[1].runs)
    repetitions = _repetitions(studies, cells)
    if not repetitions:
        raise InvalidInput(f"{first} and {second} have no configuration and repetition in common")
    metrics = [each for each in _COMPARED if all(study.measures(each[0]) for study in studies)]

    def differences(groups: Sequence[tuple[Cell, ...]]) -> tuple[Difference, ...]:
        found = [
            (metric, when, group, _ratio(studies, group, metric, when, repetitions))
            for metric, when in metrics
            for group in groups
        ]
        adjusted = holm([ratio.p for *_, ratio in found])
        return tuple(
            Difference(metric, when, g[0] if len(groups) > 1 else None, ratio, p < 1 - CONFIDENCE)
            for (metric, when, g, ratio), p in zip(found, adjusted, strict=True)
        )

    return StudyComparison(
        (first.name, second.name),
        logs,
        cells,
        len(repetitions),
        means=differences([cells]),
        by_cell=differences([(cell,) for cell in cells]) if len(cells) > 1 else (),
    )


def _repetitions(studies: Sequence[Study], cells: Sequence[Cell]) -> list[int]:
    """Those that both studies have of all cells."""
    done = [{run.repetition for run in s.runs[cell]} for s in studies for cell in cells]
    return sorted(set.intersection(*done)) if done else []


def _ratio(
    studies: Sequence[Study],
    cells: Sequence[Cell],
    metric: str,
    when: str,
    repetitions: Sequence[int],
) -> Ratio:
    """Of geometric means over the cells, repetition by repetition."""
    means = []
    for study in studies:
        values = [
            [r.value(METRICS[metric], when) for r in study.runs[c] if r.repetition in repetitions]
            for c in cells
        ]
        means.append(np.exp(np.log(np.maximum(values, LEAST)).mean(axis=0)).tolist())
    return paired_ratio(*means)


def _sentence(names: tuple[str, str], each: Difference) -> str:
    bare, other = names
    if math.isnan(each.ratio.p):
        text = f"{other} against {bare} needs at least 2 repetitions"
    elif each.ratio.within(MARGIN):
        text = f"{other} and {bare} differ by less than {100 * MARGIN:g} % ({each.ratio})"
    elif each.holds:
        much = "more" if each.ratio.value > 1 else "less"
        text = f"{much} in {other} than in {bare} ({each.ratio})"
    else:
        text = f"not decided ({other} against {bare} {each.ratio})"
    return f"{each.title}: {text}."


def write_comparison(comparison: StudyComparison, folder: Path) -> list[str]:
    """Write ``comparison.md`` and ``comparison.html``; returns their paths."""
    bare, other = comparison.names
    title = f"{other} against {bare}: {comparison.logs[0].header['name']}"
    lines = [f"# {title}\n", "## Findings\n", *(f"- {text}" for text in comparison.findings)]
    lines += ["\n## Cell by cell\n", *_by_cell(comparison), "## How they were compared\n"]
    lines += [
        f"- **{name}**: {first or 'nothing'} in {bare}, {second or 'nothing'} in {other}"
        for name, (first, second) in comparison.differing_facts.items()
    ] or ["Both say the same of machine, software and data."]
    lines.append(
        f"\n{len(comparison.cells)} cells and {comparison.repetitions} repetitions that both have; "
        "means over cells are geometric. Differences are of runs of the same repetition, with "
        "Student's 95 % intervals over repetitions; * marks what holds for all of them together "
        "(Holm)."
    )
    folder.mkdir(parents=True, exist_ok=True)
    return write_pages(folder, "comparison", title, "\n".join(lines) + "\n", {})


def _by_cell(comparison: StudyComparison) -> list[str]:
    baseline = comparison.logs[0].baseline
    titles = [each.title for each in comparison.means]
    rows = [["all", *(_shown(each.ratio, each.holds) for each in comparison.means)]]
    for cell in comparison.cells:
        found = [each for each in comparison.by_cell if each.cell == cell]
        if found:
            name = described(cell, baseline) or "baseline"
            rows.append([name, *(_shown(each.ratio, each.holds) for each in found)])
    return table(("cell", *titles), rows)


def _shown(ratio: object, holds: bool) -> str:
    return f"{ratio}{' *' if holds else ''}"
