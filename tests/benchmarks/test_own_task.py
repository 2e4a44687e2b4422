from __future__ import annotations

import json
import sys

import pytest

from benchmarks import own_task

pytestmark = pytest.mark.studies


def test_anybodys_file_is_compared(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    task = str(own_task.TASKS / "lstm.py")
    monkeypatch.setattr(sys, "argv", ["own_task", "--task", f"{task},{task}", "--json", str(out)])
    own_task.main()
    rows = json.loads(out.read_text())
    assert [row["task"] for row in rows] == ["lstm", "lstm"]
    assert rows[0]["max_abs_dw"] == 0 and rows[0]["minibatches"] == rows[0]["planned"] == 8
    assert {"style", "overhead_us_per_step"} <= rows[0].keys()
    assert rows[0]["simulated"] == rows[1]["simulated"] > 1  # a perplexity
    assert rows[0]["deployed"] is None
    assert "lstm" in capsys.readouterr().out


def test_a_difference_would_be_seen(tmp_path, monkeypatch):
    controlled = own_task.controlled

    def other(task, model, given, minibatches):
        return controlled(task, model, given | {"lr": 0.02}, minibatches)

    monkeypatch.setattr(own_task, "controlled", other)
    row = own_task.compared(str(own_task.TASKS / "quickstart.py"), {}, 3)
    assert row["max_abs_dw"] > 0
