from __future__ import annotations

import re
from dataclasses import replace

import pytest

from powerctl.characterization.comparing import compare_studies, write_comparison
from powerctl.characterization.plan import Plan
from powerctl.characterization.running import identity_of
from powerctl.characterization.study_log import StudyLog, study_path
from powerctl.characterization.virtual_bench import TwinBench
from powerctl.errors import InvalidInput


@pytest.fixture
def folder(tmp_path, made):
    """Make the folder of a study from means of its cells."""
    bench = TwinBench("twin:orin-agx", "resnet18-train")

    def make(name, cells, epochs=3, **options):
        plan = Plan(bench.baseline, epochs=epochs)
        identity = identity_of(bench, plan)
        identity["facts"] = {**identity["facts"], "software": name}
        log = StudyLog.open(study_path(tmp_path / name), identity)
        for result in made(cells, **options).results:
            log.append(result)
        log.close()
        return tmp_path / name

    make.baseline = bench.baseline
    return make


@pytest.fixture
def cells(folder):
    base = folder.baseline
    return {base: (1.0, 5.0), replace(base, workers=0): (6.0, 5.0)}


def changed(cells, factor):
    return {cell: (stall, compute * factor) for cell, (stall, compute) in cells.items()}


def test_an_overhead_is_found_with_its_interval(folder, cells):
    bare = folder("bare", cells, seed=1)
    found = compare_studies(bare, folder("container", changed(cells, 1.2), seed=2))
    (compute,) = [each for each in found.means if each.metric == "compute"]
    assert compute.holds
    assert compute.ratio.low < 1.2 < compute.ratio.high
    text = next(t for t in found.findings if t.startswith("compute"))
    assert "more in container than in bare (+2" in text
    stall = next(t for t in found.findings if t.startswith("fetch stall"))
    assert "differ by less than 5 %" in stall


def test_what_disturbs_both_sides_alike_drops_out(folder, cells):
    bare = folder("bare", cells, noise=0.2, seed=1)
    found = compare_studies(bare, folder("container", changed(cells, 1.1), noise=0.2, seed=1))
    (compute,) = [each for each in found.means if each.metric == "compute"]
    assert compute.ratio.value == pytest.approx(1.1)
    assert compute.ratio.high - compute.ratio.low < 0.001


def test_noise_is_no_overhead(folder, cells):
    bare = folder("bare", cells, noise=0.2, seed=1)
    found = compare_studies(bare, folder("container", cells, noise=0.2, seed=2))
    assert not [each for each in (*found.means, *found.by_cell) if each.holds]
    assert all("not decided" in text for text in found.findings)


def test_only_what_both_have_is_compared(folder, cells):
    bare = folder("bare", cells, repetitions=4)
    (base, *_) = cells
    found = compare_studies(bare, folder("container", {base: cells[base]}, repetitions=3))
    assert (found.cells, found.repetitions) == ((base,), 3)


def test_one_repetition_decides_nothing(folder, cells):
    found = compare_studies(folder("a", cells, repetitions=1), folder("b", cells, repetitions=1))
    assert all("needs at least 2 repetitions" in text for text in found.findings)


def test_studies_that_cannot_be_compared_are_refused(folder, cells):
    bare = folder("bare", cells)
    with pytest.raises(InvalidInput, match="3 epochs a run, .* has 4"):
        compare_studies(bare, folder("longer", cells, epochs=4))
    other = {replace(cell, batch_size=1): means for cell, means in cells.items()}
    with pytest.raises(InvalidInput, match="no configuration and repetition in common"):
        compare_studies(bare, folder("other", other))


def test_the_report_says_findings_cells_and_what_else_differs(folder, cells, tmp_path):
    found = compare_studies(folder("bare", cells), folder("container", changed(cells, 1.2), seed=9))
    write_comparison(found, tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert all(f"- {finding}" in text for finding in found.findings)
    assert re.search(r"^\| workers 0 \|.*\*", text, re.MULTILINE)
    assert "- **software**: bare in bare, container in container" in text
    assert "<table>" in (tmp_path / "out" / "comparison.html").read_text()
