from __future__ import annotations

from dataclasses import asdict

import pytest

from powerctl.errors import InvalidInput, UnknownName
from powerctl.workload import Workload, load_workload, workload_names, write_workload


@pytest.mark.parametrize("name", workload_names())
def test_shipped_workloads_say_what_they_were_fitted_to(name):
    workload = load_workload(name)
    assert workload.name == name and name.endswith(workload.kind)
    assert "error" in workload.source and workload.parameters > 1e6


def test_a_workload_of_ones_own_is_read_back(tmp_path):
    known = load_workload("lstm-train")
    path = tmp_path / "mine.toml"
    write_workload(Workload("mine", "train", 8, known.signature, "Mine", "me", 7), path)
    mine = load_workload(str(path))
    assert (mine.name, mine.batch_size, mine.model_bytes) == ("mine", 8, 28)
    assert asdict(mine.signature) == pytest.approx(asdict(known.signature), rel=1e-3)


def test_what_is_no_workload_is_refused(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'resnet18-train'"):
        load_workload("resnet18-trian")
    with pytest.raises(InvalidInput, match=r"none\.toml: no such file"):
        load_workload(str(tmp_path / "none.toml"))
    path = tmp_path / "half.toml"
    path.write_text('kind = "train"\n')
    with pytest.raises(InvalidInput, match=r"half\.toml: not a workload"):
        load_workload(str(path))
    with pytest.raises(InvalidInput, match="kind"):
        Workload("x", "sleep", 1)
    with pytest.raises(InvalidInput, match="batch size 0"):
        Workload("x", "train", 0)
    with pytest.raises(InvalidInput, match="no signature"):
        write_workload(Workload("x", "train", 1), path)
