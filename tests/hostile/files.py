"""A whole file of every kind that comes from others, and the door by which it comes in."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from powerctl.boards import load_board
from powerctl.characterization.plan import Plan
from powerctl.characterization.running import expected, identity_of, run_study
from powerctl.characterization.study_log import StudyLog
from powerctl.characterization.virtual_bench import TwinBench
from powerctl.cli import main as powerctl
from powerctl.cost_model import minibatch_cost
from powerctl.devices.roots import open_sysfs
from powerctl.doctor.board_report import board_report, read_board_report
from powerctl.doctor.recording import record
from powerctl.fakes.making import make_fake_board
from powerctl.jetson.recording import RecordedSysfs
from powerctl.measurement import MeasurementTable
from powerctl.powertrain.gaussian import GaussianPredictor, load_predictor
from powerctl.powertrain.reference import load_reference, write_reference
from powerctl.powertrain.saved import _digest
from powerctl.profiler import Procedure, ProfiledMode
from powerctl.profiler.profile_log import LogHeader, ProfileLog
from powerctl.reading import read_bytes
from powerctl.uncatalogued import found_board
from powerctl.workload import load_workload, write_workload
from tests.documented import ROOT
from tests.server.run.old_results import write_comparison
from wattfed.client.agent.own_tasks import OwnTask, OwnTasks
from wattfed.client.agent.security import read_tokens
from wattfed.client.agent.settings import read_settings
from wattfed.client.fleet import load_fleet
from wattfed.client.fleet.traces import read_traces
from wattfed.client.worker.client_state import ClientState, StateFile
from wattfed.server.cli import main as wattfed
from wattfed.server.comparison.folder import ComparisonFolder
from wattfed.server.live.run import LiveRun
from wattfed.server.run.checkpoints import _DIGEST, from_bytes, to_bytes
from wattfed.server.run.results import read_run

AGX = load_board("orin-agx")
FLEET = """start_hour = 8
[[group]]
board = "orin-nano"
count = 3
power_w = [7, 8, 9.5]
link_mbit_s = {low = 10, high = 100, seed = 1}
battery = {capacity_j = 9000, start = 0.5, charge_w = 5, charge_hours = [22, 6]}
failures = {crashes_per_h = 0.1}
[[group]]
board = "orin-agx"
energy_budget_j = 1e5
availability = {mean_on_s = 3600, mean_off_s = 600}
inference = {rate_hz = 30, latency_s = 0.5, shape = "evening"}
"""
SETTINGS = """device = "twin:orin-agx"
lease_s = 1.5
[defaults]
latency_s = 0.2
[limits]
queue_length = 10
[plan]
power_w = 30
[[model]]
name = "m"
path = "m.ts"
batch_size = 4
"""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    `open` takes the file in, by its path. `command` does so on a command line, where there is one;
    `seal` makes what was damaged pass as whole where a checksum would notice.
    """

    name: str
    write: Callable[[Path], Any]
    open: Callable[[Path], Any]
    command: tuple[Callable[[], None], tuple[str, ...]] | None = None
    seal: Callable[[bytes], bytes] = bytes


def table() -> MeasurementTable:
    """A few modes of the AGX Orin, from the cost model."""
    modes = AGX.space.thinned(2).arrays
    cost = minibatch_cost(AGX.hardware, load_workload("resnet18-train").signature, *modes, 16)
    return MeasurementTable(modes, None, np.round(cost.time_s, 6), np.round(cost.power_w, 3))


def _log(path: Path) -> None:
    header = LogHeader("orin-agx", AGX.l4t, "own", "train", "twin:orin-agx", Procedure(), 1.5)
    with ProfileLog.open(path, header) as log:
        for row in map(table().__getitem__, range(3)):
            log.append(
                ProfiledMode(row.mode, 16, row.time_s, 0.1, 40, row.power_w, 0.2, 3, 2, 9.0, True)
            )


def _board(path: Path) -> Path:
    """The files of a board that the catalogue lacks."""
    root = make_fake_board("orin-nano", "6", path.parent / "board").root
    tree = root / "proc/device-tree/compatible"
    tree.write_text("acme,box+p9767-0009\0nvidia,tegra234\0")
    return root


def _report(path: Path) -> None:
    path.write_text(board_report(open_sysfs(_board(path))), encoding="utf-8")


def _recording(path: Path) -> None:
    record(_board(path), str(path))


def _study(path: Path) -> None:
    bench = TwinBench("twin:orin-agx", "resnet18-train")
    plan = Plan(bench.baseline, {"workers": (0, 2)}, repetitions=2)
    log = StudyLog.open(path, identity_of(bench, plan))
    run_study(bench, plan, log, expected(bench, plan), budget_s=float("inf"))
    log.close()


def _sealed(content: bytes) -> bytes:
    try:
        whole = json.loads(content)
        whole["sha256"] = _digest(whole["content"])
        return json.dumps(whole).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return content


def _sealed_checkpoint(content: bytes) -> bytes:
    import hashlib

    digest = hashlib.sha256(content[: -_DIGEST - 2] + bytes(2)).hexdigest().encode()
    return content[:-_DIGEST] + digest


def _move(path: Path, place: Path) -> None:
    """Put in a place whatever is at a path, be it nothing."""
    if path != place:
        place.unlink(missing_ok=True)
        if os.path.lexists(path):
            os.replace(path, place)


def _in_run(name: str) -> Callable[[Path], Any]:
    """Look at a run one of whose files is another."""

    def look(path: Path) -> None:
        folder = path.parent / f"{path.name}-run"
        write_comparison(folder)
        run = next((folder / "runs").iterdir())
        _move(path, run / name)
        (run / "summary.json").unlink()
        LiveRun(run).look().record()
        read_run(run).to_pandas("rounds")

    return look


def _of_run(name: str) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        write_comparison(path.parent / "whole")
        path.write_bytes(next((path.parent / "whole" / "runs").glob(f"*/{name}")).read_bytes())

    return write


def _comparison(path: Path) -> None:
    _move(path, path.parent / "comparison.json")
    ComparisonFolder(path.parent).asked()


def _tasks(path: Path) -> None:
    _move(path, path.parent / "tasks.json")
    OwnTasks(path.parent).listed()


def _written(content: str | bytes, mode: int = 0o600) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)

    return write


TRACES = {
    n: {"active": [10.5, 300], "inactive": [200, 400.0], "finish_time": 900} for n in range(3)
}
FLASH = {
    "one": {
        "messages": "2020-01-01 10:00:00\twifi\n2020-01-01 10:00:01\tscreen_off\n"
        "2020-01-01 10:01:00\tbattery_charged_on\n2020-01-01 12:00:00\tscreen_on"
    }
}
FILE = "FILE"
KINDS = (
    Kind(
        "table.csv",
        lambda path: table().write(path),
        lambda path: MeasurementTable.read(path, AGX.space),
        (powerctl, ("pareto", "--table", FILE)),
    ),
    Kind("log.jsonl", _log, ProfileLog.read, (powerctl, ("pareto", "--table", FILE))),
    Kind(
        "workload.toml",
        lambda path: write_workload(load_workload("resnet18-train"), path),
        lambda path: minibatch_cost(
            AGX.hardware, load_workload(str(path)).signature, *AGX.space.maximum.values, 16
        ),
        (powerctl, ("pareto", "--workload", FILE)),
    ),
    Kind(
        "board.toml",
        lambda path: path.write_bytes((ROOT / "powerctl/boards/orin-nano.toml").read_bytes()),
        lambda path: load_board(str(path)),
        (powerctl, ("modes", "--board", FILE)),
    ),
    Kind("report.toml", _report, lambda path: found_board(read_board_report(str(path)))),
    Kind("recording.tar", _recording, RecordedSysfs),
    Kind(
        "reference.toml",
        lambda path: write_reference(load_reference("orin-agx-resnet18-train"), path),
        lambda path: load_reference(str(path)),
    ),
    Kind(
        "predictor.json",
        lambda path: GaussianPredictor(references=()).fit(table()).save(path),
        lambda path: load_predictor(path).predict(AGX.space.thinned(2).arrays),
        (powerctl, ("pareto", "--predictor", FILE)),
        _sealed,
    ),
    Kind("study.jsonl", _study, lambda path: StudyLog.read(path).study().effects),
    Kind(
        "fleet.toml",
        _written(FLEET),
        lambda path: load_fleet(str(path)).environment,
        (wattfed, ("simulate", "--fleet", FILE, "--out-dir", "OUT", "--task", "noop")),
    ),
    Kind("trace.pkl", _written(pickle.dumps(TRACES)), read_traces),
    Kind("trace.json", _written(json.dumps(FLASH)), read_traces),
    Kind("config.json", _of_run("config.json"), _in_run("config.json")),
    Kind("rounds.csv", _of_run("rounds.csv"), _in_run("rounds.csv")),
    Kind("reports.jsonl", _of_run("reports.jsonl"), _in_run("reports.jsonl")),
    Kind("target.json", _written('{"name": "loss", "direction": "min"}'), _in_run("target.json")),
    Kind(
        "round.json",
        _written('{"round": 2, "clients": [0], "deadline_s": null, "began_unix_s": 9.5}'),
        _in_run("round.json"),
    ),
    Kind(
        "refusals.jsonl",
        _written('{"round": 1, "node": 7, "client": 0, "reason": "nothing"}\n'),
        _in_run("refusals.jsonl"),
    ),
    Kind(
        "comparison.json",
        lambda path: (
            write_comparison(path.parent / "whole")
            and path.write_bytes((path.parent / "whole" / "comparison.json").read_bytes())
        ),
        _comparison,
    ),
    Kind(
        "checkpoint.npz",
        lambda path: path.write_bytes(to_bytes({"round": 1, "x": np.ones(3), "of": (1, "a")})),
        lambda path: from_bytes(read_bytes(path)),
        seal=_sealed_checkpoint,
    ),
    Kind("settings.toml", _written(SETTINGS), read_settings),
    Kind(
        "state.json",
        _written(json.dumps({**asdict(ClientState(9.5, 0.3)), "source": ""})),
        lambda path: StateFile(path).read(),
    ),
    Kind(
        "tasks.json",
        _written(json.dumps([asdict(OwnTask("mine", "/m.py", "/", ("m.py",), "0" * 64))])),
        _tasks,
    ),
    Kind("tokens", _written("# ours\n0123456789abcdef\n"), read_tokens),
)
