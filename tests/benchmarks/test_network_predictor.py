from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from benchmarks.network_predictor import NetworkPredictor, Networks
from powerctl.boards import load_board
from powerctl.cost_model import minibatch_cost
from powerctl.errors import InvalidInput, InvalidTable
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.powertrain.prediction import Prediction
from powerctl.workload import load_workload

pytestmark = pytest.mark.studies

BOARD = load_board("orin-agx")
MODES = BOARD.space.thinned(5).arrays
SOME = np.random.default_rng(0).choice(len(MODES.cores), 30, replace=False)


def table_of(workload: str, batch_sizes: tuple[int, ...] | None = None) -> MeasurementTable:
    """A workload in all modes of the sub-grid, from the cost model."""
    sizes = np.repeat(batch_sizes or (16,), len(MODES.cores))
    modes = ModeArrays(*(np.tile(axis, len(batch_sizes or (16,))) for axis in MODES))
    signature = load_workload(workload).signature
    cost = minibatch_cost(BOARD.hardware, signature, *modes, sizes)
    return MeasurementTable(modes, sizes if batch_sizes else None, cost.time_s, cost.power_w)


def mape(prediction: Prediction, table: MeasurementTable) -> tuple[float, float]:
    """Mean absolute percentage errors of time and power."""
    time, power = prediction.time_s / table.time_s - 1, prediction.power_w / table.power_w - 1
    return 100 * np.mean(np.abs(time)), 100 * np.mean(np.abs(power))


@pytest.fixture(scope="module")
def mobilenet() -> MeasurementTable:
    return table_of("mobilenetv3-train")


@pytest.fixture(scope="module")
def reference() -> NetworkPredictor:
    """Pre-trained on ResNet-18, for a fraction of the paper's steps."""
    return NetworkPredictor(epochs=20, entries_per_mode=4).fit(table_of("resnet18-train"))


def quick(pretrained: Networks | None = None, **parameters) -> NetworkPredictor:
    return NetworkPredictor(pretrained, **{"epochs": 3, "entries_per_mode": 4} | parameters)


def test_transfer_beats_training_from_scratch(reference, mobilenet):
    few = mobilenet.take(SOME)
    transferred = NetworkPredictor(reference.networks_, epochs=15).fit(few).predict(MODES)
    scratch = NetworkPredictor(epochs=15).fit(few).predict(MODES)
    for better, worse in zip(mape(transferred, mobilenet), mape(scratch, mobilenet), strict=True):
        assert better < 0.8 * worse


def test_the_same_seed_gives_the_same_predictions_and_another_seed_others(mobilenet):
    few = mobilenet.take(SOME)
    before = torch.get_rng_state()
    one, again, other = (
        quick(random_state=seed).fit(few).predict(MODES).time_s for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_a_clone_has_the_parameters_and_none_of_the_learning(reference, mobilenet):
    fitted = quick(reference.networks_, loss="mape").fit(mobilenet.take(SOME))
    copy = clone(fitted)
    assert copy.get_params().keys() == fitted.get_params().keys()
    assert copy.loss == "mape" and not hasattr(copy, "networks_")
    np.testing.assert_array_equal(
        copy.fit(mobilenet.take(SOME)).predict(MODES).power_w, fitted.predict(MODES).power_w
    )


def test_a_pickle_predicts_the_same(reference):
    copy = pickle.loads(pickle.dumps(reference))
    for one, other in zip(copy.predict(MODES), reference.predict(MODES), strict=True):
        np.testing.assert_array_equal(one, other)


def test_transfer_keeps_the_references_scaling_and_its_inner_layers_to_start_from(
    reference, mobilenet
):
    learned = quick(reference.networks_, epochs=1, learning_rate=1e-12).fit(mobilenet.take(SOME))
    np.testing.assert_array_equal(learned.networks_.input_mean, reference.networks_.input_mean)
    for new, old in (
        (learned.networks_.time, reference.networks_.time),
        (learned.networks_.power, reference.networks_.power),
    ):
        for one, other in zip(new[:-1].parameters(), old[:-1].parameters(), strict=True):
            torch.testing.assert_close(one, other)
        assert not torch.allclose(new[-1].weight, old[-1].weight, atol=1e-3)


def test_fitting_leaves_the_pretrained_networks_as_they_were(reference, mobilenet):
    before = reference.predict(MODES).time_s
    quick(reference.networks_).fit(mobilenet.take(SOME))
    np.testing.assert_array_equal(reference.predict(MODES).time_s, before)


def test_batch_sizes_are_a_fifth_input_that_transfer_can_add(reference):
    table = table_of("resnet50-infer", (1, 16, 64))
    few = table.take(np.random.default_rng(1).choice(len(table), 60, replace=False))
    predictor = NetworkPredictor(reference.networks_, epochs=15).fit(few)
    assert predictor.networks_.input_mean.shape == (5,)
    small, large = (predictor.predict(MODES, size).time_s for size in (1, 64))
    assert np.mean(large) > 2 * np.mean(small)


def test_a_network_with_batch_sizes_needs_them(mobilenet):
    table = table_of("resnet50-infer", (1, 64)).take(SOME)
    predictor = quick().fit(table)
    with pytest.raises(InvalidInput, match="with batch sizes"):
        predictor.predict(MODES)
    with pytest.raises(InvalidInput, match="positive"):
        predictor.predict(MODES, 0)
    with pytest.raises(InvalidInput, match="no batch sizes"):
        quick(predictor.networks_).fit(mobilenet.take(SOME))
    with pytest.raises(InvalidInput, match="without batch sizes"):
        quick().fit(mobilenet.take(SOME)).predict(MODES, 16)


def test_predictions_are_positive_and_have_the_error_on_the_validation_modes(mobilenet):
    predictor = quick(epochs=1, entries_per_mode=1).fit(mobilenet.take(SOME))
    prediction = predictor.predict(MODES)
    assert all(np.all(values > 0) for values in prediction[:2])
    assert np.all(prediction.time_std == predictor.time_std_) and predictor.time_std_ > 0.5
    assert np.all(prediction.power_std == predictor.power_std_) and predictor.power_std_ > 0


def test_an_axis_that_never_varied_does_not_blow_up_predictions_elsewhere(mobilenet):
    one_memory_clock = np.flatnonzero(MODES.mem_hz == MODES.mem_hz.max())[:20]
    predictor = quick(epochs=30).fit(mobilenet.take(one_memory_clock))
    assert np.max(predictor.predict(MODES).power_w) < 200


def test_two_modes_are_enough(mobilenet):
    assert np.all(quick().fit(mobilenet.take(SOME[:2])).predict(MODES).time_s > 0)


def test_it_refuses_what_it_cannot_learn_from(mobilenet):
    with pytest.raises(InvalidTable, match="at least 2"):
        quick().fit(mobilenet.take(np.array([0])))
    broken = mobilenet.take(SOME)
    broken.power_w[3] = np.nan
    with pytest.raises(InvalidTable, match="row 5"):
        quick().fit(broken)


@pytest.mark.parametrize(
    "parameters",
    [
        {"loss": "mae"},
        {"epochs": 0},
        {"entries_per_mode": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": 1e30},
    ],
)
def test_it_refuses_parameters_out_of_range(mobilenet, parameters):
    with pytest.raises(InvalidInput, match=next(iter(parameters)) + "|diverges"):
        quick(**parameters).fit(mobilenet.take(SOME))


def test_it_predicts_only_once_fitted():
    with pytest.raises(NotFittedError):
        NetworkPredictor().predict(MODES)


def test_on_measured_tables_transfer_is_near_the_published_error(shared_table):
    resnet = shared_table("orin_agx_train_resnet18.csv")
    mobilenet = shared_table("orin_agx_train_mobilenetv3.csv")
    reference = NetworkPredictor(epochs=15, entries_per_mode=1).fit(resnet)
    rows = np.random.default_rng(0).choice(len(mobilenet), 50, replace=False)
    predictor = NetworkPredictor(reference.networks_, epochs=50).fit(mobilenet.take(rows))
    time, power = mape(predictor.predict(mobilenet.modes), mobilenet)
    assert time < 22 and power < 12
