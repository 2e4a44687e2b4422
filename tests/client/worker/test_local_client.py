from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from powerctl.boards import load_board
from powerctl.errors import InvalidInput
from wattfed.client.fleet import ClientProfile
from wattfed.client.fleet.fleet import TrainingLimits
from wattfed.client.worker.client_state import ClientState
from wattfed.client.worker.local_client import LocalClient
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig

CONFIG = RunConfig()


def client(limits=None, device="twin:orin-nano", number=2, state=None, **config):
    profile = ClientProfile(number, device, limits or TrainingLimits(), unit=7)
    return LocalClient(replace(CONFIG, **config), profile, 20, state or ClientState())


def train(one, power="slack", minibatches=None, server_round=1, **assignment):
    torch.manual_seed(0)
    wanted = minibatches or one.offer().minibatches
    asked = RoundAssignment(one.profile.client, wanted, power=power, **assignment)
    return one.train(one.task.model(), asked, server_round)


def test_an_offer_counts_the_local_work_and_names_choices_within_the_limit():
    offer = client(TrainingLimits(power_w=15)).offer()
    assert offer.examples == 95 and offer.minibatches == 5 * math.ceil(95 / 16)
    assert 0 < len(offer.front) <= 12 and not offer.decline
    assert offer.front.power_w.max() < 15 < offer.maxn.energy_j / offer.maxn.time_s
    assert offer.transfer_s == pytest.approx(2 * 4 * 5_483_032 * 8 / 100e6)


def test_a_limit_that_no_mode_meets_and_an_empty_budget_are_declined_with_the_reason():
    assert "no mode surely stays within 3 W" in client(TrainingLimits(power_w=3)).offer().decline
    spent = ClientState(spent_j=998.0)
    poor = client(TrainingLimits(energy_budget_j=1000), state=spent)
    assert "2 J left" in poor.offer().decline
    report = train(poor)
    assert report.minibatches == 0 and "2 J left" in report.decline
    assert poor.state.spent_j == 998.0


def test_a_round_is_reported_beside_its_plan_and_remembered():
    one = client(TrainingLimits(power_w=15, round_energy_j=900))
    report = train(one)
    assert report.minibatches == report.planned_minibatches == report.wanted_minibatches == 30
    assert report.time_s == pytest.approx(report.planned_time_s, rel=0.2)
    assert report.energy_j == pytest.approx(report.planned_energy_j, rel=0.2)
    assert not report.broke_power_limit and not report.broke_budget
    assert one.state.spent_j == report.energy_j and one.state.loss == report.loss
    assert report.loss < report.rms_loss < 2 * report.loss  # samples differ
    assert one.state.predictor[2] == len(report.modes)


def test_a_small_allowance_gives_less_work_and_never_an_overdraft():
    one = client(TrainingLimits(round_energy_j=60))
    report = train(one)
    assert 0 < report.minibatches < report.wanted_minibatches
    assert report.energy_j <= 60 and report.examples == min(95, 16 * report.minibatches)


def test_maxn_is_blind_to_limits_and_the_report_says_so():
    one = client(TrainingLimits(power_w=10, round_energy_j=50))
    report = train(one, power="maxn")
    assert report.minibatches == report.wanted_minibatches
    assert report.broke_power_limit and report.broke_budget


@pytest.mark.parametrize(
    ("limits", "preset"),
    [
        (TrainingLimits(), "MAXN"),
        (TrainingLimits(power_w=49), "30W"),
        (TrainingLimits(power_w=29), "15W"),
    ],
)
def test_a_round_at_the_preset_stays_in_the_preset_of_the_limit(limits, preset):
    one = client(limits, "twin:orin-agx")
    report = train(one, power="preset", minibatches=10, deadline_s=1e4)
    wanted = load_board("orin-agx").preset(preset).mode
    assert one.offer().preset.mode == wanted and report.modes == (str(wanted),)
    assert report.minibatches == 10 and not report.broke_power_limit
    assert report.time_s == pytest.approx(report.planned_time_s, rel=0.2)
    assert report.energy_j == pytest.approx(report.planned_energy_j, rel=0.2)


def test_a_round_at_the_preset_keeps_deadline_allowance_and_guard():
    late, poor, hot = (
        train(client(limits, "twin:orin-agx"), power="preset", deadline_s=deadline_s)
        for limits, deadline_s in (
            (TrainingLimits(), 5.0),
            (TrainingLimits(round_energy_j=60), math.inf),
            (TrainingLimits(power_w=17), math.inf),  # the twin draws 21 W in the preset of 15 W
        )
    )
    assert 0 < late.minibatches < late.wanted_minibatches and late.time_s + late.transfer_s <= 5
    assert 0 < poor.minibatches < poor.wanted_minibatches and not poor.broke_budget
    assert hot.guard_steps and hot.minibatches == hot.wanted_minibatches


def test_a_deadline_is_met():
    one = client()
    slow = train(one, deadline_s=60.0)
    fast = train(client(), deadline_s=15.0)
    assert slow.time_s + slow.transfer_s <= 60 and fast.time_s + fast.transfer_s <= 15
    assert fast.minibatches <= slow.minibatches


def test_rounds_differ_by_seed_and_repeat_by_it():
    def losses(**changes):
        return train(client(**changes), server_round=changes.pop("server_round", 1)).loss

    assert losses() == losses() != losses(seed=1)


def test_the_workload_must_be_a_training_and_the_client_one_of_the_fleet():
    with pytest.raises(InvalidInput, match="no training workload"):
        client(workload="resnet50-infer")
    with pytest.raises(InvalidInput, match="client 20 is not one of 20"):
        client(number=20).offer()
