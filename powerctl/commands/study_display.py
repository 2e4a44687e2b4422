"""What `powerctl characterize` shows: the plan before, progress meanwhile, the findings after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from powerctl import console
from powerctl.quantities import spoken

if TYPE_CHECKING:
    from powerctl.characterization.comparing import StudyComparison
    from powerctl.characterization.plan import Cell, Plan, Run
    from powerctl.characterization.study_log import StudyLog

_SHOWN = ("epoch", "stall", "compute", "power", "sample-energy")


def plan_content(
    plan: Plan, left: Sequence[Run], expected_s: Mapping[Cell, float], virtual: bool
) -> dict[str, Any]:
    """The plan of a study as plain values; `print_plan` shows them."""
    from powerctl.characterization.plan import FACTORS, described

    return {
        "baseline": ", ".join(
            f"{each.name} {each.shown(each.level(plan.baseline))}"
            for each in FACTORS.values()
            if each.kind == plan.baseline.kind and each.name != "observer"
        ),
        "cells": [
            {"cell": described(cell, plan.baseline) or "baseline", "run_s": expected_s[cell]}
            for cell in plan.cells()
        ],
        "repetitions": plan.repetitions,
        "epochs": plan.epochs,
        "runs": len(plan.runs()),
        "done": len(plan.runs()) - len(left),
        "left_s": sum(expected_s[run.configuration] for run in left),
        "virtual": virtual,
    }


def print_plan(content: Mapping[str, Any]) -> None:
    """Print the cells of a study that is planned, and how long all of it takes."""
    rows = [[cell["cell"], float(cell["run_s"])] for cell in content["cells"]]
    console.print_table(("cell", "a run (s)"), rows)
    click.echo(f"baseline: {content['baseline']}")
    clock = " of virtual time, which passes at once" if content["virtual"] else ""
    click.echo(
        f"{len(rows)} cells, {content['repetitions']} times, {content['epochs']} epochs each: "
        f"{content['runs']} runs, {content['done']} of them done; "
        f"about {spoken(content['left_s'], 's')}{clock} left"
    )


def study_content(log: StudyLog, files: Sequence[str], left_out: int) -> dict[str, Any]:
    """The results of a study as plain values; `print_study` shows them."""
    from powerctl.characterization.findings import findings
    from powerctl.characterization.plan import described
    from powerctl.characterization.results import FIRST, LATER, METRICS

    study = log.study()
    cells = []
    for cell in study.cells:
        content: dict[str, Any] = {"cell": described(cell, study.baseline) or "baseline"}
        content["repetitions"] = len(study.runs[cell])
        for when in (FIRST, LATER):
            content[when] = {
                name: _known(study.estimate(cell, name, when).mean)
                for name in METRICS
                if study.measures(name)
            }
        cells.append(content)
    said = findings(study)
    return {
        "study": log.header["name"],
        "virtual": log.header["virtual"],
        "cells": cells,
        "findings": [each.text for each in said if each.decided],
        "open": [each.text for each in said if not each.decided],
        "seconds": sum(result.seconds for result in log.entries),
        "left_out": left_out,
        "files": list(files),
    }


def print_study(content: Mapping[str, Any]) -> None:
    """Print what later epochs cost in each cell of a study, and its findings."""
    from powerctl.characterization.results import METRICS

    cells = content["cells"]
    shown = [name for name in _SHOWN if any(cell["later"].get(name) for cell in cells)]
    header = ["cell"] + [f"{METRICS[name].title} ({METRICS[name].unit})" for name in shown]
    console.print_table(header, [[c["cell"], *(c["later"][n] for n in shown)] for c in cells])
    clock = "virtual time" if content["virtual"] else "device time"
    took = spoken(content["seconds"], "s")
    click.echo(f"{content['study']}; later epochs, means; {took} of {clock}")
    for text in content["findings"]:
        click.echo(f"- {text}")
    if content["open"]:
        click.echo(f"{len(content['open'])} questions are left open: see the report")
    if content["left_out"]:
        click.echo(f"left out: {content['left_out']} runs; run the same command to go on")
    click.echo(f"written: {', '.join(content['files'])}")


def comparison_content(found: StudyComparison, files: Sequence[str]) -> dict[str, Any]:
    """A comparison of studies as plain values; `print_comparison` shows them."""
    return {
        "first": found.names[0],
        "second": found.names[1],
        "cells": len(found.cells),
        "repetitions": found.repetitions,
        "differences": [
            {
                "metric": each.metric,
                "epochs": each.when,
                "ratio": each.ratio.value,
                "low": _known(each.ratio.low),
                "high": _known(each.ratio.high),
                "holds": each.holds,
            }
            for each in found.means
        ],
        "findings": found.findings,
        "files": list(files),
    }


def print_comparison(content: Mapping[str, Any]) -> None:
    """Print the findings of a comparison, and where they are written."""
    click.echo(
        f"{content['second']} against {content['first']}, over {content['cells']} cells and "
        f"{content['repetitions']} repetitions"
    )
    for text in content["findings"]:
        click.echo(f"- {text}")
    click.echo(f"written: {', '.join(content['files'])}")


def _known(value: float) -> float | None:
    return None if value != value else value
