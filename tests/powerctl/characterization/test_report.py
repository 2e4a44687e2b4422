from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace

import pytest

from powerctl.characterization.findings import findings
from powerctl.characterization.plan import Plan
from powerctl.characterization.report import page, write_report
from powerctl.characterization.running import expected, identity_of, run_study
from powerctl.characterization.study_log import StudyLog
from powerctl.characterization.virtual_bench import TwinBench


@pytest.fixture
def log(tmp_path):
    bench = TwinBench("twin:orin-agx", "resnet18-train")
    plan = Plan(
        replace(bench.baseline, batch_size=16),
        {"workers": (0, 4), "storage": ("ssd", "hdd"), "batch": (4, 16), "mode": ("MODE_15W",)},
    )
    log = StudyLog.open(tmp_path / "study.jsonl", identity_of(bench, plan))
    run_study(bench, plan, log, expected(bench, plan))
    log.close()
    return log


def test_the_page_stands_alone_and_says_the_findings(log, tmp_path):
    write_report(log, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', html)
    assert html.count("data:image/png;base64,") == 4
    for finding in findings(log.study()):
        assert finding.text.replace("&", "&amp;") in html
    assert "no measurement of a Jetson" in html


def test_the_markdown_names_pictures_that_are_there(log, tmp_path):
    write_report(log, tmp_path)
    text = (tmp_path / "report.md").read_text()
    pictures = re.findall(r"!\[.*\]\((.*)\)", text)
    assert len(pictures) == 4
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_every_table_row_has_the_columns_of_its_header(log, tmp_path):
    write_report(log, tmp_path)
    tables = re.findall(r"(?:^\|.*\n)+", (tmp_path / "report.md").read_text(), re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_study_that_was_stopped_before_its_first_run_has_a_page(tmp_path):
    bench = TwinBench("twin:orin-agx", "resnet18-train")
    with closing(
        StudyLog.open(tmp_path / "study.jsonl", identity_of(bench, Plan(bench.baseline, {})))
    ) as log:
        write_report(log, tmp_path)
    assert "Each cell ran up to 0 times" in (tmp_path / "report.md").read_text()


def test_names_cannot_break_the_page():
    html = page("<b>", "# <script>alert(1)</script>\n\n![x](a.png)\n", {"a.png": b"png"})
    assert "<script>" not in html
    assert "<title>&lt;b></title>" in html
    assert 'src="data:image/png;base64,cG5n"' in html
