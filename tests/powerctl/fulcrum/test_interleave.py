"""The interleaving policy, decision by decision."""

from __future__ import annotations

import math

import pytest

from powerctl.errors import InvalidInput, UnknownName
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import RunBatch, RunTraining, ServiceSpec, TrainingJob, Wait

TIMES = {1: 0.1, 4: 0.2, 8: 0.3}


def service(name="infer", **changes):
    given = {"latency_s": 2.0, "batch_size": 4, "time_s": TIMES, "rate_hz": 4.0}
    return ServiceSpec(name, **{**given, **changes})


def policy(*services, training=(), wanted=True, **options):
    """With exact times."""
    jobs = [TrainingJob(name, time_s) for name, time_s in dict(training).items()]
    made = Interleaver(services or [service()], jobs, **{"spread": 0.0, **options})
    for job in jobs:
        made.want(job.name, wanted)
    return made


def arrive(made, count, now_s=0.0, name="infer", first=0, **options):
    return [made.arrive(name, first + i, now_s, **options) for i in range(count)]


def run(made, now_s):
    """One turn to its end, as long as expected."""
    turn = made.decide(now_s).turn
    name = turn.service if isinstance(turn, RunBatch) else turn.job
    size = len(turn.requests) if isinstance(turn, RunBatch) else 1
    end_s = now_s + made.times(name).expected_s(size)
    made.finished(turn, end_s)
    return turn, end_s


# Batches


def test_a_full_batch_runs_before_training():
    made = policy(training={"train": 0.1})
    arrive(made, 4)
    assert made.decide(0.0).turn == RunBatch("infer", (0, 1, 2, 3))


def test_an_incomplete_batch_waits_until_the_latest_start():
    made = policy()
    arrive(made, 2)
    wait = made.decide(0.0).turn
    # one more request is counted in: a batch of three takes 1/6 s
    assert wait == Wait(pytest.approx(2.0 - 1 / 6))
    assert made.decide(wait.until_s).turn == RunBatch("infer", (0, 1))


def latencies(made, clients, rounds, now_s=0.0):
    """Clients of which each sends its next request when it has the answer to the last."""
    waiting = dict.fromkeys(range(clients), now_s)
    for number in waiting:
        made.arrive("infer", number, now_s)
    found, next_number = [], clients
    while len(found) < clients * rounds:
        turn = made.decide(now_s).turn
        if isinstance(turn, Wait):
            now_s = turn.until_s
            continue
        size = len(turn.requests) if isinstance(turn, RunBatch) else 1
        name = turn.service if isinstance(turn, RunBatch) else turn.job
        now_s += made.times(name).expected_s(size)
        made.finished(turn, now_s)
        for request in turn.requests if isinstance(turn, RunBatch) else ():
            found.append(now_s - waiting.pop(request))
            waiting[next_number] = now_s
            made.arrive("infer", next_number, now_s)
            next_number += 1
    return found


@pytest.mark.parametrize("rate_hz", [0.0, 40.0])
@pytest.mark.parametrize("training", [{}, {"train": 0.05}])
def test_a_lone_client_does_not_wait_for_company_that_never_comes(rate_hz, training):
    made = policy(service(batch_size=8, rate_hz=rate_hz), training=training)
    found = latencies(made, clients=1, rounds=20)
    assert max(found[5:]) <= 0.11 + sum(training.values())


def test_as_many_clients_as_the_batch_is_planned_for_fill_it():
    made = policy(service(batch_size=8, rate_hz=40.0))
    latencies(made, clients=8, rounds=20)
    assert made.accounts["infer"].answered / made.accounts["infer"].turns > 7


def test_with_nothing_to_do_it_waits_for_an_arrival():
    assert policy().decide(3.0).turn == Wait(math.inf)


def test_requests_beyond_the_planned_batch_join_it_if_that_takes_no_longer_per_request():
    made = policy()
    arrive(made, 8)
    assert made.decide(0.0).turn.requests == tuple(range(8))
    steep = policy(service(time_s={1: 0.1, 4: 0.2, 8: 0.9}))
    arrive(steep, 8)
    assert steep.decide(0.0).turn.requests == tuple(range(4))


def test_requests_run_by_deadline_not_by_arrival():
    made = policy()
    for request, deadline_s in enumerate([5.0, 1.5, 3.0, 2.0]):
        made.arrive("infer", request, 0.0, deadline_s)
    assert made.decide(0.0).turn.requests == (1, 3, 2, 0)


def test_of_two_full_services_the_urgent_one_runs_first():
    made = policy(service("slow", latency_s=9.0), service("urgent", latency_s=1.5))
    arrive(made, 4, name="slow")
    arrive(made, 4, name="urgent")
    assert [run(made, t)[0].service for t in (0.0, 0.2)] == ["urgent", "slow"]


def test_a_long_batch_of_one_service_does_not_delay_an_urgent_one_beyond_its_deadline():
    made = policy(
        service("slow", latency_s=9.0, batch_size=1, time_s={1: 0.8}),
        service("urgent", latency_s=1.0, batch_size=4),
    )
    arrive(made, 1, name="urgent")
    arrive(made, 1, 0.15, name="slow")
    assert made.decide(0.15).turn.service == "urgent"


# Training


def test_training_runs_while_a_batch_fills():
    made = policy(training={"train": 0.5})
    arrive(made, 2)
    assert made.decide(0.0).turn == RunTraining("train")


def test_training_runs_only_if_it_ends_in_time():
    made = policy(training={"train": 0.5}, reserve_deviations=0.0)
    arrive(made, 2)
    # after it the two, and the two or three that come meanwhile, are still to be met
    for now_s, safe in ((1.0, True), (1.4, False)):
        assert isinstance(made.decide(now_s).turn, RunTraining) == safe
        if safe:
            made.abandon(RunTraining("train"), now_s)


def test_training_does_not_force_a_queue_into_batches_that_do_not_keep_up():
    """Each of the queued would still be met, those that come meanwhile would not."""
    time_s = {1: 0.02, 16: 0.15, 32: 0.275, 64: 0.275}  # ResNet-50 in 8c/1958/318/3199
    large = service(latency_s=0.8, batch_size=64, time_s=time_s, rate_hz=180)
    made = policy(large, training={"train": 0.03})
    for i in range(63):
        made.arrive("infer", i, i / 180, 0.65 + 0.0095 * i)
    assert made.decide(0.35).turn == RunBatch("infer", tuple(range(63)))


def test_training_held_back_makes_a_partial_batch_run_at_once():
    made = policy(training={"train": 0.5})
    arrive(made, 2)
    assert made.decide(1.4).turn == RunBatch("infer", (0, 1))
    assert made.accounts["train"].held == 1


def test_a_minibatch_that_fits_no_budget_never_runs_and_the_policy_says_so():
    made = policy(training={"train": 3.0})
    assert not made.has_room_for_training(0.0)
    assert made.decide(0.0).turn == Wait(0.1)  # it is looked at again
    arrive(made, 2)
    assert isinstance(made.decide(0.0).turn, Wait)  # a smaller batch would be of no use


def test_training_held_for_requests_that_come_no_more_is_looked_at_again():
    made = policy(training={"train": 0.5})
    for i in range(200):
        made.arrive("infer", i, 0.01 * i)
        made.withdraw("infer", i)
    now_s = 2.0
    while isinstance(turn := made.decide(now_s).turn, Wait):
        now_s = turn.until_s
    assert turn == RunTraining("train") and 2.0 < now_s < 10.0


def test_training_runs_only_while_it_is_wanted():
    made = policy(training={"train": 0.1}, wanted=False)
    assert made.decide(0.0).turn == Wait(math.inf)
    made.want("train")
    assert run(made, 0.0)[0] == RunTraining("train")
    made.want("train", False)
    assert made.decide(1.0).turn == Wait(math.inf)


def test_training_jobs_share_the_time_not_the_turns():
    made = policy(training={"short": 0.1, "long": 0.3})
    now_s = 0.0
    for _ in range(40):
        _, now_s = run(made, now_s)
    busy_s = [made.accounts[name].busy_s for name in ("short", "long")]
    assert busy_s[0] == pytest.approx(busy_s[1], abs=0.3)


def test_a_job_that_comes_back_does_not_make_up_for_its_absence():
    made = policy(training={"a": 0.1, "b": 0.1})
    made.want("b", False)
    now_s = 0.0
    for _ in range(20):
        _, now_s = run(made, now_s)
    made.want("b")
    turns = []
    for _ in range(8):
        turn, now_s = run(made, now_s)
        turns.append(turn.job)
    assert turns.count("b") == 4


# Requests that are not met


def test_more_than_the_capacity_is_rejected_as_full():
    made = policy(service(capacity=3, batch_size=8))
    rejections = arrive(made, 5)
    assert [r and r.reason for r in rejections] == [None] * 3 + ["full"] * 2
    assert made.queued("infer") == 3


def test_a_request_that_cannot_be_met_is_rejected_as_it_comes():
    made = policy()
    assert made.arrive("infer", 0, 0.0, 0.05).reason == "late"
    assert made.arrive("infer", 1, 0.0, 0.15) is None


def test_a_running_turn_counts_for_a_request_that_comes_meanwhile():
    made = policy(training={"train": 0.5})
    made.decide(0.0)
    assert made.arrive("infer", 0, 0.1, 0.55).reason == "late"
    assert made.arrive("infer", 1, 0.1, 0.65) is None


def test_hopeless_requests_are_given_up_and_the_others_run():
    made = policy()
    made.arrive("infer", "early", 0.0, 0.3)
    made.arrive("infer", "later", 0.0, 2.0)
    turn, rejected = made.decide(0.25)
    assert [(r.request, r.reason) for r in rejected] == [("early", "late")]
    assert isinstance(turn, Wait)
    assert made.accounts["infer"].rejected_late == 1


def test_a_service_may_rather_answer_late_when_nothing_else_suffers():
    made = policy(service(late="serve"))
    made.arrive("infer", "late", 0.0, 0.05)
    assert made.decide(0.0) == (RunBatch("infer", ("late",)), ())
    made.finished(RunBatch("infer", ("late",)), 0.1)
    assert made.accounts["infer"].answered == 1 and made.accounts["infer"].within == 0


def test_late_requests_fill_up_a_batch_of_those_in_time():
    made = policy(service(late="serve", batch_size=2))
    made.arrive("infer", "late", 0.0, 0.05)
    arrive(made, 2)
    assert made.decide(0.0).turn.requests == (0, 1, "late")


def test_under_overload_the_batch_runs_that_saves_most():
    made = policy(service(rate_hz=0.0))
    made.arrive("infer", "urgent", 0.0, 0.12)
    for i in range(8):
        made.arrive("infer", i, 0.0, 0.32)
    assert made.decide(0.0).turn.requests == tuple(range(8))


def test_who_waits_no_longer_is_withdrawn():
    made = policy()
    arrive(made, 2)
    assert made.withdraw("infer", 0) and not made.withdraw("infer", 0)
    assert made.queued("infer") == 1 and made.accounts["infer"].withdrawn == 1


# Turns of other processes


def test_a_gate_is_a_service_of_batch_size_one():
    gate = service("gate", batch_size=1, time_s={1: 0.05}, latency_s=0.5)
    made = policy(gate, training={"train": 0.2})
    assert run(made, 0.0)[0] == RunTraining("train")
    made.arrive("gate", "ticket", 0.2)
    assert made.decide(0.2).turn == RunBatch("gate", ("ticket",))


def test_a_dead_holder_frees_the_device_and_teaches_nothing():
    made = policy()
    arrive(made, 4)
    turn = made.decide(0.0).turn
    assert made.abandon(turn, 7.0) == (0, 1, 2, 3)
    assert made.times("infer").expected_s(4) == 0.2
    account = made.accounts["infer"]
    assert (account.abandoned, account.withdrawn, account.busy_s) == (1, 4, 7.0)
    assert made.decide(7.0).turn == Wait(math.inf)


def test_a_turn_of_one_at_a_time():
    made = policy(training={"train": 0.1})
    turn = made.decide(0.0).turn
    with pytest.raises(InvalidInput, match="train has the device"):
        made.decide(0.05)
    with pytest.raises(InvalidInput, match="does not have the device"):
        made.finished(RunBatch("infer", (0,)), 0.1)
    made.finished(turn, 0.1)
    with pytest.raises(InvalidInput, match="nobody has it"):
        made.abandon(turn, 0.2)


# Changes


def test_a_removed_service_gives_its_requests_back():
    made = policy()
    arrive(made, 2)
    assert [(r.request, r.reason) for r in made.remove("infer")] == [(0, "removed"), (1, "removed")]
    assert made.decide(0.0).turn == Wait(math.inf)
    with pytest.raises(UnknownName, match="service"):
        made.arrive("infer", 2, 0.0)


def test_who_has_the_device_is_removed_when_its_turn_is_over():
    made = policy(training={"train": 0.1})
    turn = made.decide(0.0).turn
    with pytest.raises(InvalidInput, match="finish or abandon"):
        made.remove("train")
    made.abandon(turn, 0.1)
    made.remove("train")
    assert made.training_names == () and made.decide(0.2).turn == Wait(math.inf)


def test_names_are_taken_once_and_known():
    made = policy(training={"train": 0.1})
    with pytest.raises(InvalidInput, match="already"):
        made.add_service(service("train"))
    for wrong in (made.remove, made.want, made.times, made.queued):
        with pytest.raises(UnknownName):
            wrong("nobody")
    with pytest.raises(InvalidInput, match="not a number"):
        made.arrive("infer", 0, 0.0, math.nan)
    assert made.accounts["infer"].arrived == 0


def test_a_new_plan_holds_for_what_is_queued_already():
    made = policy()
    arrive(made, 2)
    made.replan([service(batch_size=2)])
    assert made.decide(0.0).turn == RunBatch("infer", (0, 1))


def test_a_slower_mode_moves_the_latest_start():
    made = policy()
    arrive(made, 2)
    slower = {size: 4 * time_s for size, time_s in TIMES.items()}
    made.replan([service(time_s=slower)])
    assert made.decide(0.0).turn == Wait(pytest.approx(2.0 - 4 / 6))


def test_a_turn_begun_before_a_new_plan_teaches_nothing():
    made = policy(training={"train": 0.1})
    turn = made.decide(0.0).turn
    made.replan(training=[TrainingJob("train", 0.4)])
    made.finished(turn, 0.1)
    assert made.times("train").expected_s() == 0.4


def test_times_are_learned_from_turns():
    made = policy(training={"train": 0.1})
    now_s = 0.0
    for _ in range(6):
        turn = made.decide(now_s).turn
        now_s += 0.3
        made.finished(turn, now_s)
    assert made.times("train").expected_s() == pytest.approx(0.3, rel=0.15)


def test_training_that_one_slow_phase_shut_out_is_tried_again():
    made = policy(training={"train": 0.5})
    for now_s in (0.0, 9.0, 18.0):
        made.finished(made.decide(now_s).turn, now_s + 8.0)
    assert isinstance(made.decide(27.0).turn, Wait)
    assert isinstance(made.decide(60.0).turn, Wait)  # the plan is given another chance
    assert made.decide(60.1).turn == RunTraining("train")


def test_the_load_is_what_inference_needs_at_planned_batches():
    assert policy(service(rate_hz=10.0)).load == pytest.approx(10 * 0.2 / 4)


def test_parameters_outside_their_range_are_refused():
    with pytest.raises(InvalidInput, match="reserve_deviations"):
        Interleaver(reserve_deviations=-1.0)
    with pytest.raises(InvalidInput, match="time_s"):
        TrainingJob("train", 0.0)
