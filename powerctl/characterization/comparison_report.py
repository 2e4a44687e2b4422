"""The report of a comparison: the difference of each metric, cell by cell, with intervals."""

from __future__ import annotations

from pathlib import Path

from powerctl.characterization.comparing import StudyComparison
from powerctl.characterization.factors import described
from powerctl.characterization.report import table, write_pages


def write_comparison(comparison: StudyComparison, folder: Path) -> list[str]:
    """Write ``comparison.md`` and ``comparison.html``; returns their paths."""
    bare, other = comparison.names
    title = f"{other} against {bare}: {comparison.logs[0].identity['name']}"
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
