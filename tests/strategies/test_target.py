from __future__ import annotations

import math

import numpy as np
import pytest

from powerctl.errors import InvalidInput, UnknownName
from wattfed.strategies.target import RunGoal, Target, judged_by

ACCURACY, LOSS, NAN = Target(), Target("loss", "min"), math.nan


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        *((name, "min") for name in ("loss", "val_loss", "test/MSE", "top-1 error", "perplexity")),
        *((name, "max") for name in ("accuracy", "mAP@0.5", "lossless", "R2", "BLEU")),
    ],
)
def test_a_name_tells_the_direction(name, direction):
    assert Target.named(name) == Target(name, direction)


def test_another_direction_is_refused():
    with pytest.raises(InvalidInput, match='target mAP: the direction is "max" or "min", got \'up'):
        Target("mAP", "up")


def test_better_is_more_or_less_and_every_number_is_better_than_none():
    assert ACCURACY.is_better(0.9, 0.8) and not ACCURACY.is_better(0.8, 0.8)
    assert LOSS.is_better(0.8, 0.9) and not LOSS.is_better(0.8, 0.8)
    assert LOSS.is_better(9.0, NAN) and not LOSS.is_better(NAN, 9.0)
    assert not LOSS.is_better(NAN, NAN)


def test_a_level_is_reached_from_its_own_side():
    assert ACCURACY.reached(0.9, 0.9) and not ACCURACY.reached(0.89, 0.9)
    assert LOSS.reached(0.3, 0.3) and not LOSS.reached(0.31, 0.3)
    for target in (ACCURACY, LOSS):
        assert not target.reached(NAN, 0.5) and not target.reached(None, 0.5)


def test_the_best_passes_over_what_is_no_number():
    assert ACCURACY.best([0.1, NAN, None, 0.9, 0.8]) == 0.9
    assert LOSS.best([2.0, NAN, None, 0.5]) == 0.5
    assert math.isnan(LOSS.best([None, NAN])) and LOSS.best([None]) is None


def test_levels_and_values_are_ordered_by_how_good_they_are():
    assert ACCURACY.easiest_first((0.9, 0.8)) == [0.8, 0.9]
    assert LOSS.easiest_first((0.3, 0.5)) == [0.5, 0.3]
    values = np.array([0.5, 0.2, NAN, 0.2])
    assert ACCURACY.worst_first(values).tolist() == [2, 1, 3, 0]
    assert LOSS.worst_first(values).tolist() == [2, 0, 1, 3]


@pytest.mark.parametrize(
    ("target", "value", "words"),
    [
        (ACCURACY, 0.91666, "0.917"),
        (ACCURACY, 0.05, "0.050"),
        (ACCURACY, 91.666, "91.67"),
        (LOSS, 0.3, "0.3000"),
        (LOSS, 12345.6, "1.235e+04"),
        (LOSS, 1234.0, "1234"),
        (LOSS, NAN, "nan"),
        (LOSS, None, "-"),
    ],
)
def test_values_in_words(target, value, words):
    assert target.printed(value) == words


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("mAP=0.5", RunGoal("mAP", (0.5,))),
        ("loss=0.5,0.3", RunGoal("loss", (0.5, 0.3))),
        ("log likelihood=-2.5", RunGoal("log likelihood", (-2.5,))),
        ("mAP, mean=0.4", RunGoal("mAP, mean", (0.4,))),
        ("p=0.5=0.4", RunGoal("p=0.5", (0.4,))),
        ("mAP@0.5", RunGoal("mAP@0.5")),
    ],
)
def test_a_goal_is_read_from_text_and_written_as_it_was(text, goal):
    assert RunGoal.parse(text) == goal
    assert RunGoal.parse(str(goal)) == goal


@pytest.mark.parametrize("text", ["=0.5", "mAP=", "mAP=high", "loss=nan", "loss=0.3,", "loss=inf"])
def test_what_is_no_goal_is_said(text):
    with pytest.raises(InvalidInput, match="target: cannot read .*; write METRIC=VALUE"):
        RunGoal.parse(text)


def test_a_goal_comes_before_what_the_task_declares_and_takes_its_direction():
    declared = Target("regret", "min")
    metrics = ("regret", "loss", "mAP")
    assert judged_by(None, declared, metrics) == declared
    assert judged_by(RunGoal("regret", (3.0,)), declared, metrics) == declared
    assert judged_by(RunGoal("mAP"), declared, metrics) == Target("mAP", "max")
    assert judged_by(RunGoal("loss"), declared, metrics) == LOSS


def test_a_metric_that_is_not_evaluated_is_named_with_those_that_are():
    with pytest.raises(UnknownName, match="target metric 'map': known: loss, mAP "):
        judged_by(RunGoal("map", (0.5,)), Target(), ("mAP", "loss"))
    with pytest.raises(UnknownName, match="target metric 'accuracy': known: mAP "):
        judged_by(None, Target(), ("mAP",))
