"""Signatures from counts: against the published times, and how sizes enter."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from powerctl.boards import load_board
from powerctl.calibration import errors_pct
from powerctl.cost_model import minibatch_cost, minibatch_stages
from powerctl.errors import InvalidInput
from powerctl.pagoda.counted import CountedModel
from powerctl.pagoda.counting import count_model
from powerctl.pagoda.estimate import (
    efficiency_of,
    estimate_from_totals,
    estimate_signature,
    number_format,
)

AGX = load_board("orin-agx")
RESNET50 = (8_206_316_544, 102_011_648, 234_659_744)  # published, as facts/pagoda.md has them
YOLOV8N = (8_839_855_200, 12_584_704, 526_761_600)


def maxn(signature, batch_size):
    cost = minibatch_cost(AGX.hardware, signature, *AGX.space.maximum.values, batch_size)
    return 1e3 * float(cost.time_s), float(cost.power_w)


@pytest.fixture(scope="module")
def counted():
    return {name: CountedModel.of(name, None, "infer") for name in ("resnet50", "mobilenetv3")}


@pytest.mark.studies
@pytest.mark.parametrize(
    ("name", "batch_size", "time_ms", "power_w"),
    [
        ("resnet50", 1, 15.37, 26.93),
        ("resnet50", 16, 51.56, 53.54),
        ("resnet50", 64, 191.6, 55.36),
        ("mobilenetv3", 1, 18.03, 20.86),
        ("mobilenetv3", 16, 28.12, 38.52),
        ("mobilenetv3", 64, 102.1, 39.50),
    ],
)
def test_published_times_and_powers_at_maxn(counted, name, batch_size, time_ms, power_w):
    found = maxn(counted[name].signature, batch_size)
    assert found[0] == pytest.approx(time_ms, rel=0.25)
    assert found[1] == pytest.approx(power_w, rel=0.2)


@pytest.mark.parametrize(
    ("totals", "batch_size", "time_ms"),
    [(RESNET50, 16, 51.56), (RESNET50, 64, 191.6), (YOLOV8N, 16, 107.5), (YOLOV8N, 64, 431.5)],
)
def test_totals_alone_come_near_the_published_times(totals, batch_size, time_ms):
    signature = estimate_from_totals("infer", *totals)
    assert maxn(signature, batch_size)[0] == pytest.approx(time_ms, rel=0.25)


@pytest.mark.studies
@pytest.mark.parametrize(
    ("file", "board", "model", "kind"),
    [
        ("orin_agx_train_resnet18.csv", "orin-agx", "resnet18", "train"),
        ("orin_agx_train_lstm.csv", "orin-agx", "lstm", "train"),
        ("orin_nano_train_resnet18.csv", "orin-nano", "resnet18", "train"),
        ("orin_agx_infer_mobilenetv3.csv", "orin-agx", "mobilenetv3", "infer"),
    ],
)
def test_measured_tables_without_any_profile(shared_table, file, board, model, kind):
    signature = CountedModel.of(model, None, kind).signature
    time_pct, power_pct = errors_pct(load_board(board).hardware, signature, shared_table(file), 16)
    assert time_pct <= 25 and power_pct <= 15


def test_what_bounds_a_layer_decides_its_effective_flop():
    known = efficiency_of("infer")
    wide = nn.Conv2d(256, 256, 3, padding=1)
    thin = nn.Conv2d(256, 256, 3, padding=1, groups=256)
    x = torch.empty(4, 256, 28, 28)
    (dense,), (depthwise,) = (count_model(conv, x).layers for conv in (wide, thin))
    computed = dense.flop / known.convolution_efficiency
    passed = depthwise.dram_bytes * known.flop_per_onchip_byte / known.thin_share
    assert known.effective_flop(dense) == pytest.approx(computed + known.flop_per_kernel)
    assert known.effective_flop(depthwise) == pytest.approx(passed + known.flop_per_kernel)


def test_a_recurrent_layer_is_launched_at_once_and_runs_on_tensor_cores():
    known = efficiency_of("infer")
    (lstm,) = count_model(nn.LSTM(64, 64), torch.empty(35, 4, 64)).layers
    as_other = dataclasses.replace(lstm, kind="Sequential")
    assert known.launch_cycles(lstm) < 0.1 * known.launch_cycles(as_other)
    assert number_format(lstm) == "tf32"
    assert number_format(as_other) == "fp32"


def test_a_minibatch_of_one_takes_more_of_a_sample_the_smaller_that_is():
    def fixed_share(tokens):
        counted = CountedModel.of("bert-base", f"{tokens}:int64", "infer").signature
        return counted.flop / (counted.flop + counted.flop_per_sample)

    assert fixed_share(8) > 0.4 > 0.1 > fixed_share(512)


def test_arithmetic_takes_energy_beside_the_bytes():
    def joules_per_byte(width):
        model = nn.Linear(width, width)
        count = lambda size: count_model(model, torch.empty(size, 4096, width))  # noqa: E731
        return estimate_signature(count, "infer").traffic_activity

    known = efficiency_of("infer")
    assert joules_per_byte(2048) > 1.5 * joules_per_byte(64) > 1.5 * known.shape["traffic_activity"]


def test_kernels_begin_and_end_in_as_many_cycles_of_a_smaller_gpu():
    nano = load_board("orin-nano")
    signature = CountedModel.of("mobilenetv3", None, "infer").signature
    on_nano = efficiency_of("infer").on(nano)
    assert on_nano.flop_per_kernel == efficiency_of("infer").flop_per_kernel / 2
    work = signature.flop + signature.flop_per_sample
    stages = [
        minibatch_stages(board.hardware, signature, 4, 1510400, 306e6, 2133e6, 1)
        for board in (AGX, nano)
    ]
    agx_s, nano_s = (float(each.compute_s) for each in stages)
    assert agx_s == pytest.approx(work / (4096 * 306e6))
    assert agx_s < nano_s < 2 * agx_s


@pytest.mark.studies
def test_a_host_prepares_texts_by_their_length():
    short, long = (CountedModel.of("lstm", f"{n}:int64", "train").signature for n in (8, 32))
    assert long.host_cycles_per_sample == 4 * short.host_cycles_per_sample


def test_the_estimate_grows_with_the_model_and_training_takes_more():
    def counts(width, training):
        model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        return lambda size: count_model(model, torch.empty(size, width), training=training)

    small, large = (estimate_signature(counts(w, False), "infer") for w in (256, 1024))
    trained = estimate_signature(counts(256, True), "train")
    assert large.flop_per_sample > small.flop_per_sample
    assert large.traffic_bytes > 10 * small.traffic_bytes  # the weights are 16 times as many
    assert trained.flop_per_sample > 2 * small.flop_per_sample


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(InvalidInput, match="positive"):
        estimate_from_totals("infer", 0, 0, 1)
    with pytest.raises(InvalidInput, match="kind"):
        efficiency_of("tune")
    with pytest.raises(InvalidInput, match="kind"):
        CountedModel.of("resnet18", None, "both")
