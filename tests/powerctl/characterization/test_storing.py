from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from powerctl.characterization.storing import (
    FORMS,
    StoredSamples,
    decoder,
    digits,
    generated,
    stored,
)
from powerctl.errors import InvalidInput

SAMPLES = [(b"one", 1), (b"", 2), (b"three", 3)]


@pytest.mark.parametrize("form", FORMS)
def test_samples_come_back_as_they_were_stored(tmp_path, form):
    data = StoredSamples(stored(tmp_path, form, "test", lambda: SAMPLES), bytes)
    assert [data[i] for i in (2, 0, 1)] == [SAMPLES[i] for i in (2, 0, 1)]
    assert len(data) == 3
    assert sum(path.stat().st_size for path in data.files()) == 8


@pytest.mark.parametrize("form", FORMS)
def test_samples_are_written_once(tmp_path, form):
    stored(tmp_path, form, "test", lambda: SAMPLES)
    again = stored(tmp_path, form, "test", lambda: pytest.fail("made again"))
    assert again.read(0) == b"one"


def test_samples_whose_writing_was_interrupted_are_written_again(tmp_path):
    def broken():
        yield SAMPLES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, "packed", "test", broken)
    assert stored(tmp_path, "packed", "test", lambda: SAMPLES).read(2) == b"three"


def test_another_data_set_is_not_taken_for_this_one(tmp_path):
    stored(tmp_path, "files", "images 2", lambda: SAMPLES)
    assert len(stored(tmp_path, "files", "images 1", lambda: SAMPLES[:1]).labels) == 1


def test_a_folder_that_cannot_hold_samples_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="file: cannot hold the samples"):
        stored(tmp_path / "file", "files", "test", lambda: SAMPLES)
    with pytest.raises(InvalidInput, match="files or packed, not 'tape'"):
        stored(tmp_path, "tape", "test", lambda: SAMPLES)


def test_digits_are_scikit_learns():
    known = load_digits()
    for (encoded, label), image, target in zip(digits(), known.images, known.target, strict=True):
        assert label == target
        decoded = decoder((1, 8, 8))(encoded)
        assert decoded.shape == (1, 8, 8)
        np.testing.assert_allclose(decoded[0], image / 16, atol=0.01)


def test_generated_pictures_are_decoded_to_the_asked_shape():
    pictures = list(generated(3))
    assert [encoded for encoded, _ in generated(3)] == [encoded for encoded, _ in pictures]
    decoded = decoder((3, 64, 48))(pictures[0][0])
    assert (decoded.shape, decoded.dtype) == ((3, 64, 48), np.float32)
    assert 10_000 < len(pictures[0][0]) < 60_000
