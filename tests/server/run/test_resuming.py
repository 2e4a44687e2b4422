"""A run that was broken off goes on from its last checkpoint as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from flwr.app import ArrayRecord

from benchmarks.in_process_grid import InProcessGrid
from powerctl.errors import InvalidInput
from tests import warm
from tests.fleets import WILD
from tests.full_disc import largest_file
from tests.waiting import await_state
from wattfed.client.app import app as client_app
from wattfed.server.cli import cli
from wattfed.server.engines.flower import run_federation
from wattfed.server.engines.simulation import simulate
from wattfed.server.engines.virtual import join_run
from wattfed.server.run.checkpoints import Checkpoints, from_bytes, to_bytes
from wattfed.server.run.results import read_config
from wattfed.strategies.policies.catalogue import POLICIES
from wattfed.strategies.policies.random_selection import RandomSelection
from wattfed.strategies.round.aggregation import AGGREGATIONS
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

RESULTS = ("rounds.csv", "reports.jsonl", "summary.json", "model.pt")
WATTFED = Path(sys.executable).with_name("wattfed")


class BrokenOff(Exception):
    """In place of a kill."""


def break_off(config, after, run=simulate):
    """Run until a round is over; its row is on disc, and its checkpoint if one is due."""

    def on_row(row):
        if row.round == after:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        run(config, on_row)


def go_on(config, run=simulate):
    return run(replace(config, resume=True), lambda row: None)


def results(folder):
    return {name: (folder / name).read_bytes() for name in RESULTS}


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture
def config(tmp_path):
    return RunConfig(
        out_dir=str(tmp_path),
        name="run",
        task="images-cnn(samples=400, test=50, size=4)",
        strategy="oort",
        rounds=5,
        local_epochs=1,
        checkpoint_every=2,
        workers=1,
    )


@pytest.fixture
def whole(config):
    """The same run without a break."""
    return lambda **changes: results(simulate(replace(config, name="whole", **changes)).folder)


SOON = {"tifl": "tifl(interval=2)", "haccs": "haccs(rho=0)"}  # what they learn counts at once


@pytest.mark.parametrize(
    ("strategy", "aggregation"),
    list(zip(POLICIES.names(), cycle(AGGREGATIONS.names()), strict=False)),
)
def test_every_policy_and_every_aggregation_goes_on(config, whole, strategy, aggregation):
    strategy = SOON.get(strategy, strategy)
    options = {"strategy": strategy, "aggregation": aggregation, "per_round": 7, "clip_norm": 1.0}
    if aggregation == "bulyan":  # Flower's takes milliseconds for each number of the model
        options["task"] = "noop"
    broken = replace(config, **options)
    break_off(broken, after=3)
    assert results(go_on(broken).folder) == whole(**options)


class Forgetful:
    """Somebody's policy that learns, and says nothing of it."""

    def select(self, offers, k, server_round, rng):
        return RandomSelection().select(offers, k, server_round, rng)

    def observe(self, reports):
        self.seen = len(reports)


def test_a_policy_that_does_not_tell_what_it_keeps_runs_but_is_not_resumed(
    config, monkeypatch, caplog
):
    monkeypatch.setattr("wattfed.server.run.federation.make_policy", lambda config: Forgetful())
    kept = results(simulate(config).folder)
    assert "never be resumed: Forgetful does not tell what it keeps" in caplog.text
    with pytest.raises(InvalidInput, match="run: cannot go on: Forgetful does not tell .* state()"):
        go_on(replace(config, rounds=9))
    assert results(Path(config.out_dir) / "run") == kept


@pytest.mark.parametrize(
    "options",
    [
        {"over_commit": 1.5, "strategy": "refl"},
        {"over_commit": 2.0, "late": "refl", "strategy": "refl"},
        {"buffer": 3, "late": "fedbuff", "aggregation": "fedadam"},
    ],
)
def test_updates_under_way_batteries_and_what_clients_learned_are_kept(
    config, whole, tmp_path, options
):
    (tmp_path / "wild.toml").write_text(WILD)
    # in real rounds of so few clients nobody trains beyond the end of the sixth
    rounds = "(ideal=true)" if "buffer" in options else ""
    options = {"fleet": f"{tmp_path / 'wild.toml'}{rounds}", "rounds": 9, **options}
    broken = replace(config, **options)
    break_off(broken, after=7)
    if broken.late != "drop":
        with np.load(tmp_path / "run" / "checkpoints" / "round-0006.npz") as checkpoint:
            assert any("flights" in name for name in checkpoint.files)
    assert results(go_on(broken).folder) == whole(**options)


def test_kill_9_in_mid_run(config, whole, tmp_path):
    command = ["simulate", "--out-dir", str(tmp_path), "--name", "run", "--task", config.task]
    command += ["--strategy", "oort", "--rounds", "40", "--local-epochs", "1", "--workers", "1"]
    process = warm.Popen([WATTFED, *command], stderr=subprocess.DEVNULL)

    def has_come_to_the_fourth():
        return any(p.name >= "round-0004" for p in tmp_path.glob("run/checkpoints/round-*.npz"))

    await_state(has_come_to_the_fourth, lambda: process.poll() is None, 0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "run" / "summary.json").exists()
    for name in ("round.json", "checkpoints/round-0005.npz"):  # as a kill at that moment leaves
        (tmp_path / "run" / f"{name}.0123abcd.partial").write_bytes(b"half")
    done = CliRunner().invoke(cli, [*command, "--resume"])
    assert done.exit_code == 0, done.output
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert results(tmp_path / "run") == whole(rounds=40)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(config, whole, caplog):
    break_off(config, after=4)
    folder = Path(config.out_dir) / "run" / "checkpoints"
    assert checkpoints(folder.parent) == ["round-0002.npz", "round-0004.npz"]
    damaged = bytearray((folder / "round-0004.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / "round-0004.npz").write_bytes(damaged)
    assert results(go_on(config).folder) == whole()
    assert "round-0004.npz: damaged: its checksum is wrong" in caplog.text


def test_without_a_whole_checkpoint_it_says_so(config):
    break_off(config, after=4)
    for path in Path(config.out_dir).glob("run/checkpoints/*"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidInput, match=r"no checkpoint is whole: .*round-0004.npz: damaged"):
        go_on(config)


def test_a_checkpoint_whose_rounds_are_lost_counts_as_damaged(config, whole, caplog):
    break_off(config, after=4)
    rounds = Path(config.out_dir) / "run" / "rounds.csv"
    rounds.write_text("".join(rounds.read_text().splitlines(keepends=True)[:-1]))
    assert results(go_on(config).folder) == whole()
    assert "rounds.csv has lost rounds that are in it" in caplog.text


def test_another_configuration_is_refused_and_nothing_is_lost(config, whole, tmp_path):
    fleet = tmp_path / "fleet.toml"
    fleet.write_text('[[group]]\nboard = "orin-agx"\ncount = 6\npower_w = 30\n')
    config = replace(config, fleet=str(fleet))
    break_off(config, after=3)
    with pytest.raises(InvalidInput, match="strategy was oort, not pace, seed was 0, not 1; give"):
        go_on(replace(config, strategy="pace", seed=1))
    fleet.write_text(fleet.read_text().replace("30", "40"))
    with pytest.raises(InvalidInput, match="cannot go on: the fleet has changed"):
        go_on(config)
    fleet.write_text(fleet.read_text().replace("40", "30"))
    assert results(go_on(replace(config, timeout_s=5.0)).folder) == whole(fleet=str(fleet))


def test_a_run_may_be_made_longer_but_not_shorter_than_it_is(config, whole):
    simulate(replace(config, rounds=3))
    result = go_on(config)
    assert results(result.folder) == whole()
    assert read_config(result.folder).rounds == 5
    with pytest.raises(InvalidInput, match="has 4 rounds already; give rounds as many, or more"):
        go_on(replace(config, rounds=3))


def test_where_there_is_nothing_to_go_on_from_the_run_begins(config, whole, caplog):
    assert results(go_on(config).folder) == whole()
    assert "no checkpoint to go on from, the run begins" in caplog.text


def test_a_run_of_the_same_configuration_by_another_name_is_told_of(config, caplog):
    """As where what runs are called without a name has changed."""
    break_off(replace(config, name="old"), after=2)
    break_off(replace(config, name="other", seed=1), after=2)
    break_off(replace(config, resume=True), after=1)
    assert "the run begins; one that is configured alike goes on with name old" in caplog.text
    assert "other" not in caplog.text


def test_a_finished_run_is_as_it_was_also_if_it_ended_with_its_target(config):
    config = replace(config, task="digits", strategy="pace", local_epochs=5, target_accuracy=0.15)
    finished = simulate(config)
    assert len(finished.rows) < config.rounds
    kept = results(finished.folder)
    assert go_on(config).rows == finished.rows
    assert results(finished.folder) == kept


def test_where_the_disc_has_no_room_for_a_checkpoint_the_run_goes_on(config, whole, caplog):
    config = replace(config, task="digits")
    break_off(config, after=3)
    with largest_file(83_000):  # room for the model, not for the checkpoint with it
        result = go_on(config)
    assert results(result.folder) == whole(task="digits")
    assert checkpoints(result.folder) == ["round-0000.npz", "round-0002.npz"]
    assert "round-0004.npz: no checkpoint: File too large; the run goes on" in caplog.text


def test_where_it_has_no_room_for_results_the_run_ends_and_can_go_on(config, whole):
    break_off(config, after=3)
    with largest_file(2_000), pytest.raises(InvalidInput, match="results to .*: File too large"):
        go_on(config)
    assert results(go_on(config).folder) == whole()


def test_a_run_has_one_writer(config):
    def on_row(row):
        with pytest.raises(InvalidInput, match="run: another process writes this run"):
            go_on(config)

    simulate(replace(config, rounds=1), on_row)


def test_rounds_by_message_go_on_with_nodes_that_stayed(config, whole):
    """Flower numbers the rounds of each run from 1, and the runs; nodes keep their own state."""
    told = []

    def app(message, context):
        told.append(message.content["config"]["run-id"])
        return client_app(message, context)

    grid = InProcessGrid(app, 20, config.to_flower())

    def by_message(config, on_row):
        return run_federation(grid, config, on_row)

    break_off(config, after=2, run=by_message)
    grid.set_run(join_run(7))
    assert results(go_on(config, run=by_message).folder) == whole()
    assert set(told) == {"1"}  # agents keep a client's account by it


def test_rounds_by_message_go_on_with_nodes_that_were_started_again(config, whole, tmp_path):
    def app(message, context):
        context.node_config["state-dir"] = str(tmp_path / "states")
        return client_app(message, context)

    def by_message(config, on_row):
        return run_federation(InProcessGrid(app, 20, config.to_flower()), config, on_row)

    break_off(config, after=2, run=by_message)
    assert results(go_on(config, run=by_message).folder) == whole()


def test_the_last_two_are_kept_whatever_their_number(tmp_path):
    with Checkpoints(tmp_path, ()) as kept:
        for server_round in (9_998, 9_999, 10_000, 10_001):
            kept.save(server_round, {"round": server_round})
    assert {path.name for path in tmp_path.iterdir()} == {"round-10000.npz", "round-10001.npz"}
    assert Checkpoints(tmp_path, ()).last()["round"] == 10_001


def test_what_a_checkpoint_cannot_hold_is_named():
    with pytest.raises(TypeError, match="policy/_known: a set cannot be kept"):
        to_bytes({"policy": {"_known": {1, 2}}})
    with pytest.raises(TypeError, match="counts: keys must be texts"):
        to_bytes({"counts": {1: 2}})


def test_every_kind_of_value_comes_back_as_it_was():
    state = {
        "list": [1, 2.5, None, "x", True],
        "tuple": (1, (2,)),
        "set": frozenset({3, 1}),
        "number": np.float32(0.1),
        "array": np.array([[1, 2]], dtype=np.int16),
        "record": ArrayRecord([np.arange(3.0)]),
        "nan": float("nan"),
    }
    again = from_bytes(to_bytes(state))
    assert again.keys() == state.keys()
    assert repr(again) == repr(state)
    assert type(again["number"]) is np.float32 and again["array"].dtype == np.int16
