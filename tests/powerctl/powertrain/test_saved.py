from __future__ import annotations

import hashlib
import json
import pickletools
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from powerctl.errors import InvalidInput
from powerctl.measurement import MeasurementTable
from powerctl.modes import ModeArrays
from powerctl.powertrain.gaussian import GaussianPredictor, load_predictor
from powerctl.powertrain.reference import load_reference, write_reference

RESNET = "orin-agx-resnet18-train"


def some(table: MeasurementTable, n: int = 12) -> MeasurementTable:
    return table.take(np.random.default_rng(0).choice(len(table), n, replace=False))


@pytest.fixture(scope="module")
def mobilenet(model_table) -> MeasurementTable:
    return model_table("mobilenetv3-train", noise=(0.02, 0.01))


@pytest.fixture(scope="module")
def fitted(mobilenet) -> GaussianPredictor:
    return GaussianPredictor(references=(RESNET,)).fit(some(mobilenet))


@pytest.fixture
def saved(fitted, tmp_path) -> Path:
    fitted.save(tmp_path / "mobilenet.json")
    return tmp_path / "mobilenet.json"


def assert_same(
    one: GaussianPredictor, other: GaussianPredictor, modes: ModeArrays, batch_size: object = None
) -> None:
    pairs = zip(one.predict(modes, batch_size), other.predict(modes, batch_size), strict=True)
    for values, others in pairs:
        np.testing.assert_array_equal(values, others)


def rewritten(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_predictor_predicts_the_same(fitted, saved, mobilenet):
    loaded = load_predictor(saved)
    assert_same(fitted, loaded, mobilenet.modes)
    assert loaded.get_params()["board"] == "orin-agx"
    assert [r.name for r in loaded.references_] == [RESNET]


def test_it_does_so_when_the_references_at_hand_are_others(saved, fitted, mobilenet, monkeypatch):
    monkeypatch.setattr("powerctl.powertrain.reference.reference_names", list)
    assert_same(fitted, load_predictor(saved), mobilenet.modes)


def test_residuals_of_references_travel_with_it(own_reference, mobilenet, tmp_path):
    write_reference(own_reference, tmp_path / "own.toml")
    reference = load_reference(str(tmp_path / "own.toml"))
    predictor = GaussianPredictor(references=(reference,)).fit(some(mobilenet))
    plain = GaussianPredictor(references=(RESNET,)).fit(some(mobilenet))
    predictor.save(tmp_path / "p.json")
    for name in ("own.toml", "own.npz"):
        (tmp_path / name).unlink()
    assert_same(predictor, load_predictor(tmp_path / "p.json"), mobilenet.modes)
    with pytest.raises(AssertionError):
        assert_same(predictor, plain, mobilenet.modes)


def test_residuals_that_were_never_on_disc_are_kept_to_the_last_bit(
    own_reference, mobilenet, tmp_path
):
    predictor = GaussianPredictor(references=(own_reference,)).fit(some(mobilenet))
    predictor.save(tmp_path / "p.json")
    assert_same(predictor, load_predictor(tmp_path / "p.json"), mobilenet.modes)


def test_covariances_and_errors_are_the_same_too(fitted, saved, mobilenet):
    loaded, modes = load_predictor(saved), mobilenet.modes.take(np.arange(0, 500, 20))
    for one, other in zip(fitted.covariance(modes), loaded.covariance(modes), strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.loo_error_pct_ == fitted.loo_error_pct_


def test_loading_fits_nothing(fitted, saved, mobilenet, monkeypatch):
    def fit_posterior(*given):
        raise AssertionError("fitted again")

    monkeypatch.setattr("powerctl.powertrain.gaussian.fit_posterior", fit_posterior)
    assert_same(fitted, load_predictor(saved), mobilenet.modes)
    with pytest.raises(AssertionError, match="fitted again"):
        GaussianPredictor(references=()).fit(some(mobilenet))


def test_a_file_of_version_1_is_fitted_again_and_says_so_once(fitted, saved, mobilenet, caplog):
    whole = json.loads(saved.read_text())
    del whole["content"]["posterior"]
    text = json.dumps(whole["content"], sort_keys=True)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    saved.write_text(json.dumps(whole | {"version": 1, "sha256": sha256}))
    loaded = load_predictor(saved)
    assert_same(fitted, loaded, mobilenet.modes)
    (record,) = caplog.records
    assert "mobilenet.json: of version 1, which does not keep what was" in record.message
    caplog.clear()
    loaded.save(saved)
    assert_same(fitted, load_predictor(saved), mobilenet.modes)
    assert not caplog.records


@pytest.mark.parametrize(
    "parameters",
    [
        {"references": ()},
        {"board": "orin-nano", "references": (RESNET,)},
        {"kind": "infer", "batch_size": 4, "references": (RESNET,)},
        {"l4t": "35.3.1", "references": None},
    ],
)
def test_it_keeps_the_parameters(mobilenet, tmp_path, parameters):
    predictor = GaussianPredictor(**parameters).fit(some(mobilenet))
    predictor.save(tmp_path / "p.json")
    loaded = load_predictor(tmp_path / "p.json")
    assert_same(predictor, loaded, mobilenet.modes)
    for name in ("board", "l4t", "kind", "batch_size"):
        assert getattr(loaded, name) == getattr(predictor, name)


def test_it_keeps_the_batch_sizes(model_table, tmp_path):
    table = model_table("mobilenetv3-infer", batch_sizes=(1, 8, 64))
    predictor = GaussianPredictor(kind="infer", references=(RESNET,)).fit(some(table, 20))
    predictor.save(tmp_path / "p.json")
    assert_same(predictor, load_predictor(tmp_path / "p.json"), table.modes, table.batch_size)


def test_it_may_have_no_measurements(mobilenet, tmp_path):
    predictor = GaussianPredictor(references=(RESNET,)).fit(some(mobilenet, 0))
    predictor.save(tmp_path / "p.json")
    assert_same(predictor, load_predictor(tmp_path / "p.json"), mobilenet.modes)


def test_a_loaded_predictor_saves_the_same_file(saved, tmp_path):
    load_predictor(saved).save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved.read_bytes()


def test_the_file_is_plain_text_without_pickles(own_reference, mobilenet, tmp_path):
    path = tmp_path / "p.json"
    GaussianPredictor(references=(own_reference,)).fit(some(mobilenet)).save(path)
    json.loads(path.read_text(encoding="ascii"))
    with pytest.raises(ValueError):
        list(pickletools.genops(path.read_bytes()))


def test_only_a_fitted_predictor_can_be_saved(tmp_path):
    with pytest.raises(NotFittedError):
        GaussianPredictor().save(tmp_path / "p.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(saved, share):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    with pytest.raises(InvalidInput, match=r"mobilenet.json: not a predictor, or damaged"):
        load_predictor(saved)


def test_a_changed_number_is_noticed(saved):
    whole = json.loads(saved.read_text())
    whole["content"]["table"]["time_s"][3] *= 1.0001
    saved.write_text(json.dumps(whole))
    with pytest.raises(InvalidInput, match=r"mobilenet.json: damaged.*checksum"):
        load_predictor(saved)


@pytest.mark.parametrize("changes", [{"content": None}, {"sha256": "0" * 64}, {"sha256": None}])
def test_content_and_checksum_belong_together(saved, changes):
    rewritten(saved, **changes)
    with pytest.raises(InvalidInput, match=r"mobilenet.json: damaged.*fit it again"):
        load_predictor(saved)


def test_a_file_of_a_newer_version_asks_to_upgrade(saved):
    rewritten(saved, version=3)
    with pytest.raises(InvalidInput, match=r"mobilenet.json: of version 3.*upgrade"):
        load_predictor(saved)


@pytest.mark.parametrize("content", ["cores,cpu_khz\n", "[]", '{"format": "other"}', "7", "\0"])
def test_another_file_is_no_predictor(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InvalidInput, match=r"other.json: not a predictor"):
        load_predictor(path)


def test_a_binary_file_is_no_predictor(tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(b"\x80\x04\xff\xfe")
    with pytest.raises(InvalidInput, match=r"other.json: not a predictor"):
        load_predictor(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"none.json: no such file"):
        load_predictor(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_is_named(fitted, tmp_path):
    with pytest.raises(InvalidInput, match=r"p.json: cannot be written"):
        fitted.save(tmp_path / "no" / "p.json")


def test_an_estimate_from_counts_is_saved_too(mobilenet, tmp_path):
    expected = load_reference(RESNET).signature
    predictor = GaussianPredictor(references=(), expected=expected).fit(some(mobilenet))
    predictor.save(tmp_path / "counted.json")
    loaded = load_predictor(tmp_path / "counted.json")
    assert loaded.expected == expected
    same = (p.predict(mobilenet.modes).time_s for p in (predictor, loaded))
    np.testing.assert_allclose(*same)
