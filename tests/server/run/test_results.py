"""Where a run's results go: names that tell runs apart, and finished runs that stay."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from powerctl.errors import InvalidInput
from tests.strategies.offers_of import offer
from wattfed.server.app import warn_of_place
from wattfed.server.cli import main
from wattfed.server.run.participants import Participants
from wattfed.server.run.results import ResultsFolder, placed, refusal_of
from wattfed.strategies.offers import Offers
from wattfed.strategies.round.ledger import RefusedReply
from wattfed.strategies.run_config import RunConfig


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def made(out, name, *, finished):
    """A run's folder with its configuration, and its summary if it has finished."""
    (out / name).mkdir(parents=True)
    (out / name / "config.json").write_text("{}")
    if finished:
        (out / name / "summary.json").write_text("{}")


def test_a_finished_run_is_not_written_over_and_the_next_is_number_2(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ("simulate", "--task", "noop", "--rounds", 2)
    first = tmp_path / "runs/noop-pace-slack-seed0"
    second = first.with_name(f"{first.name}-2")
    assert f"results: {first}" in call(main, *words).stdout.splitlines()
    before = files(first)
    assert f"results: {second}" in call(main, *words).stdout.splitlines()
    assert files(first) == before
    assert files(second)["rounds.csv"] == before["rounds.csv"]
    longer = call(main, *words[:-1], 3, "--resume")
    assert f"results: {second}" in longer.stdout.splitlines(), longer.stderr
    assert "goes on after round 2" in longer.stderr
    assert json.loads((second / "summary.json").read_text())["rounds"] == 3
    refused = call(main, *words, "--name", "noop-pace-slack-seed0")
    assert refused.returncode == 2 and "holds a finished run: give another name" in refused.stderr
    assert files(first) == before


@pytest.mark.parametrize(
    ("finished", "broken_off", "resume", "name"),
    [
        ([], [], False, "b"),
        ([], ["b"], False, "b"),
        ([], ["b"], True, "b"),
        (["b"], [], False, "b-2"),
        (["b"], [], True, "b"),
        (["b"], ["b-2"], False, "b-2"),
        (["b"], ["b-2"], True, "b-2"),
        (["b", "b-2"], [], False, "b-3"),
        (["b", "b-2"], [], True, "b-2"),
    ],
)
def test_the_name_is_the_first_that_is_free_or_the_last_to_go_on_with(
    tmp_path, finished, broken_off, resume, name
):
    config = RunConfig(out_dir=str(tmp_path), resume=resume)
    named = {"b": config.run_name, "b-2": f"{config.run_name}-2", "b-3": f"{config.run_name}-3"}
    for names, whole in ((finished, True), (broken_off, False)):
        for each in names:
            made(tmp_path, named[each], finished=whole)
    assert placed(config).run_name == named[name]
    given = replace(config, name="mine")
    assert placed(given) == given


def test_a_folder_of_a_finished_run_is_not_begun_anew(tmp_path):
    made(tmp_path, "x", finished=True)
    before = files(tmp_path / "x")
    with pytest.raises(InvalidInput, match="holds a finished run"):
        ResultsFolder(tmp_path / "x").begin(RunConfig())
    assert files(tmp_path / "x") == before


@pytest.mark.parametrize("folder", ["keys", "keys/runs"])
def test_results_beside_keys_are_warned_of(tmp_path, caplog, folder):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/ca.key").touch()
    warn_of_place(tmp_path / "runs")
    assert not caplog.text
    warn_of_place(tmp_path / folder)
    assert f"{tmp_path}/keys/ca.key" in caplog.text and "out-dir" in caplog.text


@pytest.mark.parametrize(("other", "warned"), [("theirs", True), ("mine", False)])
def test_results_in_the_folder_of_another_app_are_warned_of(
    tmp_path, monkeypatch, caplog, other, warned
):
    """The SuperLink that ``flwr run`` started in one app's folder runs others too."""
    sent = tmp_path / "home" / "apps" / "me.mine.0.1.0.abc"
    for folder, name in ((sent, "mine"), (tmp_path / "here", other)):
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n')
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(sent)])
    warn_of_place(tmp_path / "here" / "runs")
    assert ("into the folder of another app, theirs" in caplog.text) == warned


@pytest.mark.parametrize("node", [0, 2**63, 2**64 - 1])
def test_names_and_numbers_of_nodes_are_read_back_whatever_flower_draws(node, tmp_path):
    refused = RefusedReply(1, node, 0, "it made no sense", "garage")
    assert refusal_of("a line", json.dumps(vars(refused))) == refused
    assert str(refused) == f"garage (node {node}), client 0: it made no sense"
    offers = Offers.of([offer(client) for client in range(2)])
    told = Participants.of(offers, ["garage", "attic"], {}, nodes=[node, 5])
    ResultsFolder(tmp_path).write_participants(told)
    read = Participants.of_run(tmp_path)
    assert read == told and [group.node for group in read.groups] == [node, 5]
    assert read.everyone == "clients 0 garage, 1 attic"
