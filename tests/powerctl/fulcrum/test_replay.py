from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from powerctl.fulcrum.problems import Job
from powerctl.fulcrum.replay import Replay
from tests.powerctl.fulcrum.conftest import twin_table

SPACE = load_board("orin-agx").space.thinned(3)


def test_it_measures_what_the_tables_say():
    train = twin_table("resnet18-train", SPACE)
    infer = twin_table("mobilenetv3-infer", SPACE, (1, 4))
    replay = Replay.of({"train": train, "infer": infer}, "orin-agx")
    assert len(replay.candidates) == len(SPACE) and replay.batch_sizes("infer") == (1, 4)
    for row in (0, 7, 80):
        found = train[row]
        assert replay.measure(found.mode, Job("train")) == (found.time_s, found.power_w)
        found = infer[row]
        job = Job("infer", found.batch_size)
        assert replay.measure(found.mode, job) == (found.time_s, found.power_w)
    jobs = (Job("infer", 4), Job("train"))
    time_s, power_w = replay.columns(jobs)
    mode = replay.candidates.mode(11)
    assert (time_s[11, 1], power_w[11, 1]) == replay.measure(mode, jobs[1])
    with pytest.raises(InvalidInput, match="no table has infer x9; there are: train, infer x1"):
        replay.measure(mode, Job("infer", 9))


def test_only_modes_that_all_tables_have_may_be_chosen():
    train = twin_table("resnet18-train", SPACE).take(np.arange(0, 81, 2))
    infer = twin_table("mobilenetv3-infer", SPACE, (1, 4)).take(np.arange(1, 60))
    replay = Replay.of({"train": train, "infer": infer}, "orin-agx")
    shared = {SPACE.mode(i) for i in range(2, 30, 2)}  # mode 0 lacks a batch size
    assert {replay.candidates.mode(i) for i in range(len(replay.candidates))} == shared
    assert np.isfinite(replay.record.time_s).all()


def test_a_grid_leaves_out_the_other_modes():
    fewer = SPACE.subspace(cores=(12,))
    replay = Replay.of({"train": twin_table("resnet18-train", SPACE)}, "orin-agx", fewer)
    assert len(replay.candidates) == len(fewer)
    assert replay.candidates.space.cores == (12,)


def test_tables_in_the_wrong_place_are_told():
    train = twin_table("resnet18-train", SPACE)
    infer = twin_table("mobilenetv3-infer", SPACE, (1, 4))
    with pytest.raises(InvalidInput, match="of inference, not training"):
        Replay.of({"train": infer}, "orin-agx")
    with pytest.raises(InvalidInput, match="it is of training"):
        Replay.of({"infer": train}, "orin-agx")
    with pytest.raises(InvalidInput, match="no mode was measured in all of"):
        Replay.of(
            {"train": train.take(np.arange(3)), "infer": infer.take(np.arange(20, 24))},
            "orin-agx",
        )
