"""Pictures of fronts: what is in them, and axes that people can read."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from powerctl.powertrain.front_plot import plot_front
from powerctl.powertrain.prediction import Prediction


@pytest.fixture
def drawn(monkeypatch, small_table, tmp_path):
    """Draw the small table's front; gives the axes of the picture."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))
    )

    def draw(std=0.03, cost="power", **options):
        spread = np.full(len(small_table), std)
        costs = Prediction(small_table.time_s, small_table.power_w, spread, spread)
        plot_front(tmp_path / "front.png", costs, cost, "title", **options)
        return figures[-1].axes[0]

    return draw


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def ticks(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_uncertain_fronts_have_a_band_and_certain_ones_have_none(drawn):
    assert "90 % interval of its power" in legend(drawn())
    assert not any("interval" in text for text in legend(drawn(std=0)))


def test_measured_modes_limit_and_choice_are_named(drawn, small_table):
    some = small_table.take(np.arange(5))
    named = legend(drawn(measured=some, limit_w=25, chosen=(3, "choice 4c/1/2/3")))
    assert {"measured, 5", "limit 25 W", "choice 4c/1/2/3"} <= set(named)


@pytest.mark.parametrize("cost", ["power", "energy"])
def test_axes_have_plain_numbers(drawn, cost):
    axes = drawn(cost=cost)
    for axis in (axes.xaxis, axes.yaxis):
        assert len(ticks(axis)) >= 4
        assert all(float(text.replace(",", "")) > 0 for text in ticks(axis))


def test_modes_far_from_the_front_are_left_out(drawn, small_table):
    label = legend(drawn(cost="energy"))[0]
    shown, _, of = label.removeprefix("modes, ").split()
    assert 0 < int(shown) < int(of) == len(small_table)
