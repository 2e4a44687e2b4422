"""The notebooks of `examples/` run, and what is kept in them is what they print and draw."""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.ipynb"))


def printed(text: str) -> str:
    """A text without its numbers, which other versions of torch change, and without widths."""
    return re.sub(r"[\d.]+", "N", re.sub(r"\s+", " ", text)).strip()


def kept(cell: dict) -> tuple[str, int]:
    """What a cell has printed, and how many figures it has drawn."""
    outputs = cell["outputs"]
    streams = [output for output in outputs if output["output_type"] == "stream"]
    assert all(output["name"] == "stdout" for output in streams)
    figures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(streams) + len(figures) == len(outputs)
    return printed("".join("".join(output["text"]) for output in streams)), len(figures)


@pytest.mark.studies
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_and_draws_what_it_shows(path, tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = json.loads(path.read_text())["cells"]
    made: dict[str, object] = {"__name__": "notebook"}
    with matplotlib.rc_context():
        for cell in cells:
            if cell["cell_type"] != "code":
                continue
            exec("".join(cell["source"]), made)
            assert (printed(capsys.readouterr().out), len(plt.get_fignums())) == kept(cell)
            plt.close("all")
    assert path.stat().st_size < 100_000


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["profile_and_choose", "simulate_and_compare"]
