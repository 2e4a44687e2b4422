"""Managed interleaving on virtual time: what holds for whole executions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.traces import bursts, constant, poisson
from benchmarks.virtual_time import Execution, replay
from powerctl.errors import InvalidInput
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import RunBatch, RunTraining, ServiceSpec, TrainingJob, Wait

SIZES = (1, 2, 4, 8, 16)
SOME = settings(max_examples=settings.default.max_examples // 2)


class Watched(Interleaver):
    """Remembers what it decided, and looks for idleness that nothing excuses."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.turns = []
        self.idle_though_safe = []

    def decide(self, now_s):
        decision = super().decide(now_s)
        self.turns.append((now_s, decision.turn))
        if isinstance(decision.turn, Wait):
            safe = any(
                self._schedulability.is_safe(now_s, now_s + self.times(name).safe_s())
                for name in self._jobs.wanting()
            )
            full = any(queue.is_full for queue in self._queues.values())
            if safe or full:
                self.idle_though_safe.append(now_s)
        return decision


@st.composite
def plans(draw):
    """A feasible plan: times of batches and of a minibatch, a batch, a rate, a budget."""
    one_s, more_s = draw(st.floats(0.005, 0.05)), draw(st.floats(0.0005, 0.01))
    infer_s = {size: one_s + more_s * (size - 1) for size in SIZES}
    batch = draw(st.sampled_from(SIZES))
    rate_hz = draw(st.floats(0.1, 0.8)) * batch / infer_s[batch]
    train_s = draw(st.floats(0.2, 1.5)) * (batch / rate_hz - infer_s[batch])
    # fulcrum.md: the oldest of a full batch, and a minibatch in the way; one gap, as they come
    # meanwhile
    latency_s = (batch + 1) / rate_hz + infer_s[batch] + train_s
    service = ServiceSpec("infer", latency_s, batch, infer_s, rate_hz)
    return service, TrainingJob("train", train_s)


def play(services, jobs, traces, duration_s, variation=0.0, seed=0, times=None, **options):
    policy = Watched(services, jobs, **{"spread": 0.0 if not variation else 0.05, **options})
    for job in jobs:
        policy.want(job.name)
    planned = {s.name: s.time_s for s in services} | {j.name: {1: j.time_s} for j in jobs}
    execution = Execution({**planned, **(times or {})}, variation, np.random.default_rng(seed))
    return policy, replay(policy, traces, execution, duration_s)


@SOME
@given(plans(), st.booleans())
def test_with_exact_times_and_a_feasible_plan_no_deadline_is_missed(plan, trains):
    service, job = plan
    duration_s = 60 * service.batch_size / service.rate_hz
    trace = list(constant(service.rate_hz, duration_s))
    policy, record = play([service], [job] if trains else [], {"infer": trace}, duration_s)
    assert record.services["infer"].missed == 0
    assert policy.idle_though_safe == []


@SOME
@given(plans())
def test_training_gets_the_minibatches_that_the_plan_has_room_for(plan):
    service, job = plan
    cycle_s = service.batch_size / service.rate_hz
    of_cycle = math.floor((cycle_s - service.time_s[service.batch_size]) / job.time_s + 1e-9)
    assume(of_cycle >= 1)
    trace = list(constant(service.rate_hz, 60 * cycle_s))
    _, record = play([service], [job], {"infer": trace}, 60 * cycle_s)
    assert record.training["train"].minibatches >= 0.9 * 60 * of_cycle
    assert record.services["infer"].missed == 0


@SOME
@given(plans(), st.lists(st.floats(1.0, 20.0), min_size=5, max_size=60), st.integers(0, 9))
def test_requests_far_enough_apart_are_met_however_they_come(plan, gaps, seed):
    service, job = plan
    apart_s = job.time_s + service.time_s[1]
    trace = np.cumsum(np.array(gaps) * apart_s * 1.001).tolist()
    _, record = play([service], [job], {"infer": trace}, trace[-1], seed=seed)
    assert record.services["infer"].missed == 0


@SOME
@given(plans(), st.integers(0, 99), st.sampled_from([0.0, 0.05, 0.3]), st.sampled_from([1, 8, 500]))
def test_accounts_add_up_under_any_load(plan, seed, variation, capacity):
    service, job = plan
    rng = np.random.default_rng(seed)
    urgent = ServiceSpec(
        "urgent", service.latency_s / 2, 1, service.time_s, capacity=capacity, late="serve"
    )
    traces = {
        "infer": list(poisson(service.rate_hz, 3.0, rng)),
        "urgent": list(bursts(service.rate_hz / 2, 6, 0.3, 0.5, 3.0, rng)),
    }
    policy, record = play([service, urgent], [job], traces, 3.0, variation, seed)
    for name, trace in traces.items():
        account, served = policy.accounts[name], record.services[name]
        assert account.arrived == account.settled == len(trace) == served.requests
        assert account.answered == len(served.latency_s) == served.answered
        assert served.missed == served.requests - served.within >= served.refused
        assert policy.queued(name) == 0
    batches = [turn for _, turn in policy.turns if isinstance(turn, RunBatch)]
    assert len(batches) == sum(s.batches for s in record.services.values())
    assert record.utilisation <= 1 + 1e-9
    assert policy.idle_though_safe == []


@SOME
@given(plans(), st.integers(0, 99))
def test_batches_take_the_earliest_deadlines(plan, seed):
    service, job = plan
    trace = list(poisson(service.rate_hz, 5.0, np.random.default_rng(seed)))
    policy, _ = play([service], [job], {"infer": trace}, 5.0)
    answered = [r for _, turn in policy.turns if isinstance(turn, RunBatch) for r in turn.requests]
    assert answered == sorted(answered)


INFER_S = {1: 0.02, 4: 0.026, 16: 0.05, 32: 0.09}


def scenario(load, batch=16, train_s=0.06, margin=1.2):
    rate_hz = load * batch / INFER_S[batch]
    latency_s = margin * (batch / rate_hz + INFER_S[batch] + train_s)
    return ServiceSpec("infer", latency_s, batch, INFER_S, rate_hz), TrainingJob("train", train_s)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("variation", [0.0, 0.05])
def test_random_arrivals_are_met_and_training_has_what_they_leave(load, batch, variation):
    service, job = scenario(load, batch)
    trace = list(poisson(service.rate_hz, 30, np.random.default_rng(3)))
    _, record = play([service], [job], {"infer": trace}, 30, variation)
    assert record.services["infer"].missed == 0
    assert record.share_of_left > 0.9 or (load > 0.6 and batch == 1)


def test_an_urgent_service_is_met_beside_one_that_can_wait():
    urgent = ServiceSpec("urgent", 0.25, 1, {1: 0.02, 4: 0.03}, 10.0)
    patient = ServiceSpec("patient", 2.0, 16, INFER_S, 100.0)
    rng = np.random.default_rng(0)
    traces = {s.name: list(poisson(s.rate_hz, 30, rng)) for s in (urgent, patient)}
    _, record = play([urgent, patient], [TrainingJob("train", 0.06)], traces, 30, 0.05)
    assert all(served.missed == 0 for served in record.services.values())
    assert record.services["urgent"].latency_pct_s(99) < 0.25
    assert record.share_of_left > 0.9


@pytest.mark.parametrize("slower", [1.3, 1.8])
def test_a_slower_mode_is_followed_within_a_few_minibatches(slower):
    service, job = scenario(0.3, margin=2.0)
    trace = list(poisson(service.rate_hz, 60, np.random.default_rng(0)))
    times = {
        "infer": {size: slower * time_s for size, time_s in INFER_S.items()},
        "train": {1: slower * job.time_s},
    }
    policy, record = play([service], [job], {"infer": trace}, 60, 0.05, times=times)
    assert policy.times("train").expected_s() == pytest.approx(slower * job.time_s, rel=0.05)
    assert record.services["infer"].missed <= 0.001 * len(trace)
    assert record.share_of_left > 0.9


def test_overload_is_shed_and_the_device_goes_on_answering_in_time():
    service, job = scenario(0.6)
    highest_hz = 32 / INFER_S[32]
    trace = list(poisson(2 * highest_hz, 20, np.random.default_rng(0)))
    _, record = play([service], [job], {"infer": trace}, 20)
    served = record.services["infer"]
    assert served.within == served.answered
    assert served.within > 0.8 * highest_hz * 20
    assert record.training["train"].minibatches < 20


def test_a_plan_changed_while_requests_queue_loses_none():
    service, job = scenario(0.5)
    policy = Interleaver([service], [job], spread=0.0)
    policy.want("train")
    for request in range(40):
        policy.arrive("infer", request, 0.0)
    turn = policy.decide(0.0).turn
    fast = ServiceSpec("infer", service.latency_s, 4, {1: 0.01, 4: 0.013}, service.rate_hz)
    policy.replan([fast], [TrainingJob("train", 0.03)])
    policy.finished(turn, 0.09)
    answered, now_s = list(turn.requests), 0.09
    while isinstance(turn := policy.decide(now_s).turn, RunBatch):
        now_s += 0.013
        policy.finished(turn, now_s)
        answered += turn.requests
    assert sorted(answered) == list(range(40)) and turn == RunTraining("train")


def test_chance_is_of_the_seed():
    service, job = scenario(0.6)
    trace = list(poisson(service.rate_hz, 5, np.random.default_rng(0)))
    one, again, other = (
        play([service], [job], {"infer": trace}, 5, 0.1, seed)[1] for seed in (1, 1, 2)
    )
    assert one == again != other


def test_time_after_the_duration_is_for_answers_and_counts_for_nobody():
    service = ServiceSpec("infer", 10.0, 4, {4: 1.0})
    _, record = play([service], [TrainingJob("train", 0.5)], {"infer": [0.9, 0.95]}, 1.0)
    assert record.services["infer"].answered == 2 and record.duration_s == 1.0
    assert record.training["train"].minibatches == 2 and record.training_share == 1
    assert math.isnan(record.share_of_left) or record.share_of_left == 1


def test_a_record_of_nothing_is_no_division_by_zero():
    _, record = play([scenario(0.5)[0]], [], {"infer": []}, 1.0)
    served = record.services["infer"]
    assert served.within_budget_pct == 100 and math.isnan(served.latency_pct_s(99))
    assert record.utilisation == 0


def test_times_vary_around_their_mean_as_asked():
    execution = Execution({"a": {1: 0.1}}, 0.05, np.random.default_rng(0))
    times = np.array([execution("a", 1) for _ in range(5000)])
    assert times.mean() == pytest.approx(0.1, rel=0.01)
    assert times.std() / times.mean() == pytest.approx(0.05, rel=0.05)


def test_what_cannot_be_executed_is_refused():
    with pytest.raises(InvalidInput, match="rng"):
        Execution({"a": {1: 0.1}}, 0.05)
    with pytest.raises(InvalidInput, match="duration"):
        replay(Interleaver(), {}, Execution({}), 0.0)
