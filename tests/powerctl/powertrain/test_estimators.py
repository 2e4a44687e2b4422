"""What scikit-learn asks of an estimator, of both predictors.

Its checks that fit on arrays do not apply: these predictors fit on tables. What those checks ask
for is asked here with a table.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks

from benchmarks.network_predictor import NetworkPredictor
from powerctl.powertrain.gaussian import GaussianPredictor

CHECKS = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)
PREDICTORS = {
    "gaussian": GaussianPredictor("orin-agx", references=("orin-agx-resnet18-train",)),
    "network": NetworkPredictor(epochs=2, entries_per_mode=2),
}


@pytest.fixture(params=list(PREDICTORS))
def predictor(request):
    return clone(PREDICTORS[request.param])


@pytest.fixture(scope="module")
def table(model_table):
    whole = model_table("mobilenetv3-train", noise=(0.02, 0.01))
    return whole.take(np.random.default_rng(0).choice(len(whole), 12, replace=False))


@pytest.mark.parametrize("kind", [GaussianPredictor, NetworkPredictor])
@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learns_checks_pass(kind, check):
    if not hasattr(estimator_checks, check):
        pytest.skip("not in this version of scikit-learn")
    getattr(estimator_checks, check)(kind.__name__, kind())


def test_fit_returns_the_predictor_itself(predictor, table):
    assert predictor.fit(table) is predictor


def test_fit_changes_no_parameter_and_adds_only_learned_attributes(predictor, table):
    before = {name: id(value) for name, value in predictor.get_params(deep=False).items()}
    known = set(vars(predictor))
    predictor.fit(table)
    after = {name: id(value) for name, value in predictor.get_params(deep=False).items()}
    assert after == before
    assert all(name.endswith("_") for name in set(vars(predictor)) - known)


def test_fitting_again_gives_the_same(predictor, table):
    one = predictor.fit(table).predict(table.modes)
    again = predictor.fit(table).predict(table.modes)
    other = clone(predictor).fit(table).predict(table.modes)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one, other)


def test_a_clone_has_not_learned(predictor, table):
    copy = clone(predictor.fit(table))
    assert copy.get_params(deep=False).keys() == predictor.get_params(deep=False).keys()
    assert not [name for name in vars(copy) if name.endswith("_")]


def test_a_pickle_predicts_the_same(predictor, table):
    copy = pickle.loads(pickle.dumps(predictor.fit(table)))
    np.testing.assert_array_equal(copy.predict(table.modes), predictor.predict(table.modes))


def test_predicting_changes_nothing(predictor, table):
    predictor.fit(table)
    before = {name: id(value) for name, value in vars(predictor).items()}
    predictor.predict(table.modes)
    assert {name: id(value) for name, value in vars(predictor).items()} == before


def test_a_modes_prediction_does_not_depend_on_the_others(predictor, table):
    predictor.fit(table)
    some = np.array([7, 2, 5])
    few, all_of_them = predictor.predict(table.modes.take(some)), predictor.predict(table.modes)
    for one, other in zip(few, all_of_them, strict=True):
        np.testing.assert_allclose(one, other[some], rtol=1e-5)


def test_the_order_of_the_rows_does_not_matter(table):
    predictor = PREDICTORS["gaussian"]
    one = clone(predictor).fit(table).predict(table.modes)
    other = clone(predictor).fit(table.take(np.arange(12)[::-1])).predict(table.modes)
    np.testing.assert_allclose(one, other, rtol=1e-3)


def test_it_learns_from_arrays_that_cannot_be_written(predictor, table):
    for values in (*table.modes, table.time_s, table.power_w):
        values.flags.writeable = False
    predictor.fit(table).predict(table.modes)


def test_parameters_can_be_set_by_name(predictor):
    assert predictor.set_params(batch_size=4) is predictor
    assert predictor.get_params()["batch_size"] == 4
