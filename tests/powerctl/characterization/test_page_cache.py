from __future__ import annotations

import os

import pytest

from powerctl.characterization.page_cache import cache_method, empty_cache
from powerctl.errors import InvalidInput


def test_the_whole_cache_is_dropped_where_that_is_permitted(tmp_path):
    drop = tmp_path / "drop_caches"
    drop.touch()
    assert cache_method("auto", drop) == "drop"
    empty_cache("drop", (), drop)
    assert drop.read_text() == "3\n"


def test_elsewhere_the_files_alone_are_put_out(tmp_path):
    nowhere = tmp_path / "none" / "drop_caches"
    assert cache_method("auto", nowhere) == "advise"
    with pytest.raises(InvalidInput, match="needs root; or --cache advise"):
        cache_method("drop", nowhere)
    with pytest.raises(InvalidInput, match="not 'never'"):
        cache_method("never", nowhere)


def test_files_that_were_put_out_are_whole(tmp_path):
    file = tmp_path / "data"
    file.write_bytes(os.urandom(100_000))
    before = file.read_bytes()
    empty_cache("advise", [file])
    assert file.read_bytes() == before


def test_a_kept_cache_touches_nothing(tmp_path):
    empty_cache("keep", [tmp_path / "not there"])
