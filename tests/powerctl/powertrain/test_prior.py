from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import board_names, load_board
from powerctl.calibration import ACTIVITIES, BOUNDS, FIXED, GENERIC, PER_SAMPLE
from powerctl.cost_model import minibatch_cost
from powerctl.powertrain.prior import SIZES, TIME_SHAPES, WATTS, Prior, prior_for
from powerctl.powertrain.reference import Reference, load_reference

AGX = load_board("orin-agx")
RESNET = load_reference("orin-agx-resnet18-train")
LSTM = load_reference("orin-agx-lstm-train")
MOBILENET = load_reference("orin-agx-mobilenetv3-infer")
NANO = load_reference("orin-nano-resnet18-train")
SHIPPED = (RESNET, LSTM, MOBILENET, NANO)


def std(prior: Prior, name: str) -> float:
    at = prior.names.index(name)
    return float(np.sqrt(prior.covariance[at, at]))


def value(prior: Prior, name: str) -> float:
    return float(np.exp(prior.mean[prior.names.index(name)]))


def watts_times(reference: Reference, factor: float) -> Reference:
    """The reference as if its board took more of every power constant."""
    more = {name: factor * getattr(reference.hardware, name) for name in WATTS}
    return replace(reference, hardware=replace(reference.hardware, **more))


def test_one_reference_alike_is_the_mean():
    prior = prior_for(AGX, "train", False, [RESNET])
    for name in (*PER_SAMPLE, "launch_cycles", *TIME_SHAPES, *ACTIVITIES):
        assert value(prior, name) == pytest.approx(getattr(RESNET.signature, name))
    for name in WATTS:
        assert value(prior, name) == pytest.approx(getattr(RESNET.hardware, name))


def test_several_references_alike_count_by_their_geometric_mean():
    prior = prior_for(AGX, "train", False, [RESNET, LSTM])
    both = RESNET.signature.flop_per_sample * LSTM.signature.flop_per_sample
    assert value(prior, "flop_per_sample") == pytest.approx(np.sqrt(both))
    assert value(prior, "static_w") == pytest.approx(
        np.sqrt(RESNET.hardware.static_w * LSTM.hardware.static_w)
    )


def test_for_the_workload_references_of_the_same_kind_count_alone():
    alone = prior_for(AGX, "train", False, [RESNET])
    among = prior_for(AGX, "train", False, [MOBILENET, RESNET])
    for name in (*PER_SAMPLE, "launch_cycles", *TIME_SHAPES, *ACTIVITIES):
        assert value(among, name) == pytest.approx(value(alone, name))


def test_of_another_kind_references_count_where_there_are_no_others_and_widen_the_prior():
    prior = prior_for(AGX, "infer", False, [RESNET])
    assert value(prior, "gpu_norm") == pytest.approx(RESNET.signature.gpu_norm)
    alike = prior_for(AGX, "train", False, [RESNET])
    assert std(prior, "launch_cycles") > std(alike, "launch_cycles")
    assert std(prior, "gpu_activity") > std(alike, "gpu_activity")


def test_for_the_board_references_of_the_same_board_count_alone():
    alone = prior_for(AGX, "train", False, [RESNET])
    among = prior_for(AGX, "train", False, [NANO, RESNET])
    for name in WATTS:
        assert value(among, name) == pytest.approx(value(alone, name))


def test_another_board_takes_its_own_constants_times_what_the_reference_found_of_its_boards():
    nx = load_board("orin-nx")
    found = replace(RESNET, hardware=AGX.hardware)
    prior, higher = (prior_for(nx, "train", False, [r]) for r in (found, watts_times(found, 1.25)))
    for name in WATTS:
        assert value(prior, name) == pytest.approx(getattr(nx.hardware, name))
        assert value(higher, name) == pytest.approx(1.25 * getattr(nx.hardware, name))
    assert prior.hardware.bytes_per_mem_cycle == nx.hardware.bytes_per_mem_cycle


def test_another_boards_constants_are_less_sure():
    same, other = (
        prior_for(load_board(name), "train", False, [RESNET]) for name in ("orin-agx", "orin-nx")
    )
    assert all(std(other, name) > std(same, name) for name in WATTS)
    assert std(other, "gpu_norm") == pytest.approx(std(same, "gpu_norm"))


def test_without_batch_sizes_fixed_parts_go_into_those_per_sample():
    prior = prior_for(AGX, "infer", False, [MOBILENET])
    assert not set(FIXED) & set(prior.names)
    hardware, signature = prior.model(prior.mean)
    modes = AGX.space.thinned(3).arrays
    one = minibatch_cost(hardware, signature, *modes, MOBILENET.batch_size)
    other = minibatch_cost(hardware, MOBILENET.signature, *modes, MOBILENET.batch_size)
    np.testing.assert_allclose(one.time_s, other.time_s)
    # The host's waiting is spread over all that its cores do, launching too.
    np.testing.assert_allclose(one.power_w, other.power_w, rtol=0.01)


def test_with_batch_sizes_fixed_parts_are_those_of_a_reference_that_knows_them():
    prior = prior_for(AGX, "infer", True, [MOBILENET])
    for name in FIXED:
        assert value(prior, name) == pytest.approx(getattr(MOBILENET.signature, name))


def test_with_batch_sizes_that_no_reference_has_fixed_parts_are_guessed_and_unsure():
    known, guessed = (
        prior_for(AGX, kind, True, [reference])
        for kind, reference in (("infer", MOBILENET), ("train", RESNET))
    )
    for name in FIXED:
        ratio = value(guessed, name) / value(guessed, f"{name}_per_sample")
        assert ratio == pytest.approx(2.0)
        assert std(guessed, name) > std(known, name)


def test_without_references_the_prior_is_generic_and_wider():
    known, generic = prior_for(AGX, "train", True, [RESNET]), prior_for(AGX, "train", True, [])
    for name in (*PER_SAMPLE, "launch_cycles", *TIME_SHAPES, *ACTIVITIES):
        assert value(generic, name) == pytest.approx(getattr(GENERIC, name))
    assert value(generic, "static_w") == pytest.approx(AGX.hardware.static_w)
    for name in (*PER_SAMPLE, *TIME_SHAPES, *ACTIVITIES, *WATTS):
        assert std(generic, name) > std(known, name)


def test_workloads_are_larger_or_smaller_in_all_their_parts_together():
    prior = prior_for(AGX, "train", True, [RESNET])
    spread = np.sqrt(np.diag(prior.covariance))
    correlation = prior.covariance / np.outer(spread, spread)
    sized = np.array([name in SIZES for name in prior.names])
    assert np.all(correlation[np.ix_(sized, sized)] > 0.5)
    assert np.all(correlation[np.ix_(sized, ~sized)] == 0)


@given(
    st.sampled_from(board_names()),
    st.sampled_from(["train", "infer"]),
    st.booleans(),
    st.lists(st.sampled_from(SHIPPED), unique_by=id),
)
def test_every_prior_is_a_normal_distribution_over_positive_parameters(
    board, kind, batched, references
):
    prior = prior_for(load_board(board), kind, batched, references)
    n = len(prior.names)
    assert prior.mean.shape == (n,) and prior.covariance.shape == (n, n)
    assert np.all(np.isfinite(prior.mean))
    np.testing.assert_array_equal(prior.covariance, prior.covariance.T)
    assert np.linalg.eigvalsh(prior.covariance).min() > 0


def test_a_model_has_the_free_parameters_given_and_the_others_of_the_mean():
    prior = prior_for(AGX, "train", False, [RESNET])
    hardware, signature = prior.model(prior.mean + 0.5)
    assert signature.flop_per_sample == pytest.approx(
        np.exp(0.5) * RESNET.signature.flop_per_sample
    )
    assert hardware.static_w == pytest.approx(np.exp(0.5) * RESNET.hardware.static_w)
    assert hardware.gpu_busy_w == AGX.hardware.gpu_busy_w


def test_shapes_have_bounds_and_sizes_have_none():
    prior = prior_for(AGX, "train", False, [RESNET])
    lowest, highest = prior.bounds()
    for name, bounds in BOUNDS.items():
        at = prior.names.index(name)
        assert np.exp([lowest[at], highest[at]]) == pytest.approx(bounds)
    at = prior.names.index("flop_per_sample")
    assert lowest[at] < prior.mean[at] - 30 < prior.mean[at] + 30 < highest[at]


def test_an_estimate_from_counts_moves_the_sizes_and_makes_them_surer():
    before = prior_for(AGX, "train", False, [RESNET])
    estimate = replace(RESNET.signature, flop_per_sample=3e9, traffic_bytes_per_sample=2e8)
    after = before.updated(estimate, 16)
    for name in ("flop_per_sample", "traffic_bytes_per_sample"):
        assert std(after, name) < 0.5 * std(before, name)
        wanted = getattr(estimate, name)
        assert abs(np.log(value(after, name) / wanted)) < 0.3
    assert value(after, "static_w") == pytest.approx(value(before, "static_w"))
    assert np.linalg.eigvalsh(after.covariance).min() > 0


def test_an_estimates_fixed_parts_count_where_sizes_do_not_vary():
    estimate = replace(MOBILENET.signature, flop=16e9, flop_per_sample=1e9)
    without = prior_for(AGX, "infer", False, []).updated(estimate, 16)
    assert value(without, "flop_per_sample") == pytest.approx(2e9, rel=0.2)
    with_sizes = prior_for(AGX, "infer", True, []).updated(estimate, 16)
    assert value(with_sizes, "flop_per_sample") == pytest.approx(1e9, rel=0.35)
