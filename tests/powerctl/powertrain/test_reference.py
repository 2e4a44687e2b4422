from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.calibration import errors_pct
from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.powertrain.reference import (
    Reference,
    known_references,
    load_reference,
    reference_names,
    user_folder,
    write_reference,
)

TABLES = {
    "orin-agx-lstm-train": "orin_agx_train_lstm.csv",
    "orin-agx-mobilenetv3-infer": "orin_agx_infer_mobilenetv3.csv",
    "orin-agx-mobilenetv3-train": "orin_agx_train_mobilenetv3.csv",
    "orin-agx-resnet18-train": "orin_agx_train_resnet18.csv",
    "orin-agx-resnet50-infer": "orin_agx_infer_resnet50.csv",
    "orin-agx-yolov8n-train": "orin_agx_train_yolov8n.csv",
    "orin-nano-resnet18-train": "orin_nano_train_resnet18.csv",
}
RESNET = "orin-agx-resnet18-train"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty home, so that references of who runs the tests do not count."""
    monkeypatch.setenv("POWERCTL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def same(one: Reference, other: Reference) -> None:
    """Both hold the same, to the digits that a file has."""
    for part in ("signature", "hardware", "deviations"):
        for name, value in asdict(getattr(one, part)).items():
            assert getattr(getattr(other, part), name) == pytest.approx(value, rel=1e-4), name
    for name in ("name", "board", "kind", "batch_size", "batched", "source", "n_rows"):
        assert getattr(one, name) == getattr(other, name)
    assert one.time_error_pct == pytest.approx(other.time_error_pct, rel=1e-4)
    assert one.power_error_pct == pytest.approx(other.power_error_pct, rel=1e-4)


def test_references_ship_for_two_boards_and_both_kinds():
    assert set(reference_names()) == set(TABLES)
    known = known_references()
    assert {r.board for r in known} == {"orin-agx", "orin-nano"}
    assert {r.kind for r in known} == {"train", "infer"}


@pytest.mark.parametrize("name", list(TABLES))
def test_a_shipped_reference_names_where_it_is_from_and_holds_no_table(name):
    reference = load_reference(name)
    assert reference.name == name and load_board(reference.board).name == reference.board
    assert "tables" in reference.source and "JetPack" in reference.source
    assert reference.n_rows > 100
    assert reference.residual is None


@pytest.mark.parametrize("name", list(TABLES))
def test_a_shipped_references_error_is_what_it_says(name, shared_table):
    reference, table = load_reference(name), shared_table(TABLES[name])
    time, power = errors_pct(reference.hardware, reference.signature, table, reference.batch_size)
    assert len(table) == reference.n_rows
    assert time == pytest.approx(reference.time_error_pct, rel=0.2)
    assert power == pytest.approx(reference.power_error_pct, rel=0.2)


def test_a_reference_of_parameters_survives_its_file(tmp_path):
    reference = replace(load_reference(RESNET), name="mine", source='"quoted" \\ and plain')
    write_reference(reference, tmp_path / "mine.toml")
    same(reference, load_reference(str(tmp_path / "mine.toml")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.toml"]


@pytest.mark.studies
def test_a_reference_with_a_residual_survives_its_files(own_reference, tmp_path):
    write_reference(own_reference, tmp_path / "folder" / "own.toml")
    read = load_reference(str(tmp_path / "folder" / "own.toml"))
    same(own_reference, read)
    assert read.residual.l4t == own_reference.residual.l4t
    np.testing.assert_array_equal(read.residual.batch_sizes, [16])
    for part in ("smooth", "spikes"):
        np.testing.assert_allclose(
            getattr(read.residual, part), getattr(own_reference.residual, part), atol=1e-4
        )


def test_a_persons_own_reference_is_found_by_its_name(own_reference, home):
    assert user_folder() == home / "references"
    write_reference(own_reference, user_folder() / "own.toml")
    assert "own" in reference_names()
    same(own_reference, load_reference("own"))
    assert "own" in {r.name for r in known_references()}


def test_a_persons_own_reference_comes_before_one_that_ships():
    write_reference(replace(load_reference(RESNET), n_rows=7), user_folder() / f"{RESNET}.toml")
    assert load_reference(RESNET).n_rows == 7
    assert reference_names().count(RESNET) == 1


def test_predictors_start_from_a_persons_own_reference_too(own_reference, model_table):
    write_reference(own_reference, user_folder() / "own.toml")
    table = model_table("mobilenetv3-train").take(np.arange(0, 500, 50))
    assert "own" in {r.name for r in GaussianPredictor().fit(table).references_}


def test_an_unknown_name_lists_those_that_there_are():
    with pytest.raises(UnknownName, match=f"did you mean '{RESNET}'"):
        load_reference("orin-agx-resnet-train")
    with pytest.raises(InvalidInput, match="nowhere.toml"):
        load_reference("nowhere.toml")


def test_a_reference_of_a_newer_version_asks_to_upgrade(tmp_path):
    path = tmp_path / "mine.toml"
    write_reference(load_reference(RESNET), path)
    path.write_text(path.read_text().replace("version = 1", "version = 2"))
    with pytest.raises(InvalidInput, match=r"mine.toml.*version 2.*upgrade"):
        load_reference(str(path))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[signature]", "[signature"),
        ("n_rows", "rows"),
        ("flop_per_sample", "flops_per_sample"),
        ("[hardware]", "[board_constants]"),
        ("static_w = ", 'static_w = "much" # '),
        ("board = ", 'board = "orin-max" # '),
        ("time_noise = ", "time_noise = -"),
        ("flop_per_sample = ", "flop_per_sample = nan # "),
    ],
)
def test_a_damaged_reference_is_named(tmp_path, old, new):
    path = tmp_path / "mine.toml"
    write_reference(load_reference(RESNET), path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InvalidInput, match=r"mine.toml"):
        load_reference(str(path))


def test_a_missing_residual_is_named(own_reference, tmp_path):
    write_reference(own_reference, tmp_path / "own.toml")
    (tmp_path / "own.npz").unlink()
    with pytest.raises(InvalidInput, match=r"own.npz: no such file"):
        load_reference(str(tmp_path / "own.toml"))


def cut(path):
    path.write_bytes(path.read_bytes()[:500])


def scrambled(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def of_another_board(path):
    np.savez(path, l4t="34.1", batch_sizes=[16], smooth=np.ones((1, 2, 5)), spikes=np.ones(5))


def pickled(path):
    np.savez(path, l4t="34.1", batch_sizes=[16], smooth=np.array([{}]), spikes=np.array([{}]))


@pytest.mark.parametrize("damage", [cut, scrambled, of_another_board, pickled])
def test_a_damaged_residual_is_named(own_reference, tmp_path, damage):
    write_reference(own_reference, tmp_path / "own.toml")
    damage(tmp_path / "own.npz")
    with pytest.raises(InvalidInput, match=r"own.toml: not a reference, or damaged: residual"):
        load_reference(str(tmp_path / "own.toml"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match=r"mine.toml: cannot be written"):
        write_reference(load_reference(RESNET), tmp_path / "file" / "mine.toml")


def test_a_residual_is_found_mode_by_mode(own_reference):
    board, residual = load_board("orin-agx"), own_reference.residual
    some = np.array([7000, 3, 18000])
    smooth, spikes = residual.at(board, board.space.arrays.take(some), np.full(3, 16.0))
    np.testing.assert_array_equal(smooth, residual.smooth[0][:, some])
    np.testing.assert_array_equal(spikes, residual.spikes[0][:, some])
    assert np.any(smooth != 0)


def test_modes_out_of_the_space_have_no_residual(own_reference):
    board = load_board("orin-agx")
    top = board.space.maximum
    modes = ModeArrays.of([PowerMode(*top.values[:3], top.mem_hz + 1), top])
    found = own_reference.residual.at(board, modes, np.full(2, 16.0))
    assert found.shape == (2, 2, 2)
    assert not found[:, :, 0].any() and found[0, :, 1].any()


def test_a_residual_is_that_of_the_nearest_batch_size(own_reference):
    board, one = load_board("orin-agx"), own_reference.residual
    both = replace(
        one,
        batch_sizes=np.array([4, 64]),
        smooth=np.concatenate([one.smooth, 2 * one.smooth]),
        spikes=np.concatenate([one.spikes, 2 * one.spikes]),
    )
    modes = ModeArrays.of([board.space.maximum] * 4)
    found = both.at(board, modes, np.array([1.0, 8.0, 32.0, 100.0]))
    np.testing.assert_allclose(found[0, 0], one.smooth[0, 0, -1] * np.array([1, 1, 2, 2]))
