from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from powerctl.boards import load_board
from powerctl.devices.twin import NO_VARIATION, Twin
from powerctl.fulcrum.plans import RoundPlan, Segment
from powerctl.workload import load_workload
from tests.tasks import load_task, training_on
from wattfed.client.tasks.sampled import Samples
from wattfed.client.worker.execution import execute_plan

BOARD, JOB = load_board("orin-agx"), load_workload("mobilenetv3-train")
FAST, SLOW = BOARD.space.maximum, BOARD.space.parse("8c/1190/624/2133")


def plan(*counts):
    segments = []
    for mode, count in counts:
        time_s, power_w = Twin(BOARD, variation=NO_VARIATION).steady(mode, JOB)
        segments.append(Segment(mode, count, time_s, time_s * power_w))
    return RoundPlan(tuple(segments))


def counted_steps():
    done = []

    def steps():
        while True:
            yield lambda: done.append(1)

    return done, steps()


def test_a_plan_runs_as_planned_and_the_device_is_left_as_found():
    device = Twin(BOARD)
    done, steps = counted_steps()
    wanted = plan((FAST, 30), (SLOW, 40))
    result = execute_plan(device, JOB, wanted, steps)
    assert [(s.mode, s.minibatches) for s in result.segments] == [(FAST, 30), (SLOW, 40)]
    assert len(done) == result.minibatches == 70 and not result.stopped
    assert result.time_s == pytest.approx(wanted.time_s, rel=0.15)
    assert result.energy_j == pytest.approx(wanted.energy_j, rel=0.2)
    assert device.mode() == FAST


@pytest.mark.parametrize("unit", range(5))
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_it_never_overruns_time_or_energy(unit, share):
    wanted = plan((SLOW, 60))
    for limit, total in (("time_limit_s", wanted.time_s), ("energy_cap_j", wanted.energy_j)):
        device = Twin(BOARD, unit=unit, random_state=unit)
        result = execute_plan(device, JOB, wanted, counted_steps()[1], **{limit: share * total})
        spent = result.time_s if limit == "time_limit_s" else result.energy_j
        assert spent <= share * total
        if share < 0.9:
            assert result.stopped == {"time_limit_s": "deadline", "energy_cap_j": "energy"}[limit]
            assert result.minibatches > 0.7 * share * 60 - 2


def test_a_failing_step_leaves_the_device_as_found():
    device = Twin(BOARD)

    def steps():
        yield lambda: None
        yield lambda: 1 / 0

    with pytest.raises(ZeroDivisionError):
        execute_plan(device, JOB, plan((SLOW, 5)), steps())
    assert device.mode() == FAST


def test_power_is_reported_settled_and_at_its_peak():
    device = Twin(BOARD, unit=3)
    result = execute_plan(device, JOB, plan((SLOW, 60)), counted_steps()[1])
    steady_w = device.steady(SLOW, JOB)[1]
    (segment,) = result.segments
    assert segment.settled_power_w == pytest.approx(steady_w, rel=0.02)
    assert steady_w * 0.98 < result.peak_power_w < steady_w * 1.05
    short = execute_plan(device, JOB, plan((FAST, 3)), counted_steps()[1])
    assert math.isnan(short.segments[0].settled_power_w)
    # power has not risen yet, and what is drawn as it falls belongs to the training
    fast_w = device.steady(FAST, JOB)[1]
    assert short.energy_j / short.time_s == pytest.approx(fast_w, rel=0.05)
    assert short.peak_power_w < 0.7 * fast_w


def trained(steps, **options):
    task = load_task("digits")
    torch.manual_seed(0)
    samples = task.train_samples().take(torch.arange(70))
    model = task.model()
    with training_on(model, samples, **options) as training:
        iterator = training.steps()
        for _ in range(steps):
            next(iterator)()
    return model, training.losses


def test_training_learns_and_repeats_exactly():
    (one, losses), (two, again) = trained(100), trained(100)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5]) and losses == again
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


def test_fedprox_keeps_the_model_near_the_global_one():
    def distance(model):
        torch.manual_seed(0)
        start = load_task("digits").model()
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return sum(float(((a - b) ** 2).sum().detach()) for a, b in pairs)

    assert distance(trained(20, proximal_mu=5.0)[0]) < 0.5 * distance(trained(20)[0])


def minibatches_of(model, n, batch_size):
    """The model after one pass over n samples, and the losses of the pass."""
    torch.manual_seed(0)
    samples = Samples(torch.randn(n, 4), torch.arange(n) % 3)
    with training_on(model, samples, batch_size) as training:
        for _, step in zip(range(math.ceil(n / batch_size)), training.steps(), strict=False):
            step()
    return training.losses


@pytest.mark.parametrize(("n", "batch_size"), [(17, 16), (1, 16), (3, 2), (3, 1)])
def test_a_minibatch_of_one_sample_trains_a_model_that_normalises_over_the_batch(n, batch_size):
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    before = model[0].weight.detach().clone()
    losses = minibatches_of(model, n, batch_size)
    assert len(losses) == math.ceil(n / batch_size) and all(map(math.isfinite, losses))
    assert not torch.equal(model[0].weight, before)
    assert model[1].num_batches_tracked == sum(size > 1 for size in sizes(n, batch_size))


def test_larger_minibatches_are_normalised_by_themselves_also_after_one_of_one():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    minibatches_of(model, 5, 2)
    minibatches_of(model, 5, 2)
    assert model[0].num_batches_tracked == 4


def sizes(n, batch_size):
    return [len(part) for part in torch.arange(n).split(batch_size)]
