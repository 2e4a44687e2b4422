"""Files of each kind that our commands read, made by our commands, and the lines that read them."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shlex
import shutil
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.breaking.trying import Door, check_end, tried
from powerctl import console
from wattfed.strategies.code_version import code_version

COMMANDS = {
    "powerctl": "powerctl.cli",
    "wattfed": "wattfed.server.cli",
    "wattfed-agent": "wattfed.client.agent.cli",
}
_HEAVY = (
    "torch",
    "wattfed.server.engines.simulation",
    "wattfed.server.comparison.report",
    "scipy.optimize",
    "sklearn.datasets",
    "matplotlib.pyplot",
    "jinja2",
    "flwr.app",
)
_FLEET = '[[group]]\nboard = "orin-nano"\ncount = 4\n'
_WRITTEN = {
    "fleet.toml": f"{_FLEET}power_w = [10, 12, 12, 15]\nenergy_budget_j = 4000\n"
    "round_energy_j = 800\nlink_mbit_s = { median = 25, sigma = 0.8, seed = 4 }\n"
    "[group.battery]\ncapacity_j = 1.8e6\nstart = { low = 0.5, high = 1.0, seed = 5 }\n"
    "charge_w = 90\ncharge_hours = [22, 6]\n[group.failures]\nsilent_share = 0.02\n",
    "away.toml": f'{_FLEET}[group.availability]\ntrace = "behaviour.pkl"\n',
    "flash.toml": f'{_FLEET}[group.availability]\ntrace = "flash.json"\n',
    "flash.json": json.dumps(
        {
            "one": {
                "messages": "2020-01-25 22:32:41\tscreen_lock\n2020-01-25 22:40:00\twifi\n"
                "2020-01-25 22:41:00\tbattery_charged_on\n2020-01-25 23:32:41\tscreen_unlock"
            }
        }
    ),
    "agent.toml": 'device = "host:orin-agx"\nlatency_s = 0.05\nmode = "absent"\n',
}
MAKES = (
    "powerctl profile --device twin:orin-nano --workload resnet18-train --modes 12 --out log.jsonl "
    "--csv table.csv",
    "powerctl fit table.csv --board orin-nano --kind train --no-reference --out predictor.json",
    "powerctl twin fit table.csv --board orin-nano --kind train --name mine --out fitted.toml",
    "powerctl twin estimate --name told --flop-per-sample 1e9 --bytes-per-sample 1e7 "
    "--weight-bytes 1e6 --kind train --batch 16 --parameters 1000000 --out told.toml",
    "powerctl reference build table.csv --board orin-nano --kind train --name mine --out ref.toml",
    "powerctl fake-board orin-nano board",
    "wattfed simulate --task noop --fleet fleet.toml --per-round 3 --rounds 2 --out-dir runs "
    "--name one --workers 1",
    "wattfed compare --task noop --fleet fleet.toml --per-round 3 --rounds 2 --seeds 1 "
    "--strategies random,pace --all-rounds --jobs 1 --workers 1 --out compared",
)
READS = (
    "powerctl pareto --board orin-nano --table table.csv",
    "powerctl choose --board orin-nano --predictor predictor.json --power 12W",
    "powerctl predict --predictor predictor.json --mode MAXN",
    "powerctl fit table.csv --board orin-nano --kind train --no-reference --out made.json",
    "powerctl pareto --board orin-nano --workload fitted.toml",
    "powerctl twin run --board orin-nano --workload told.toml",
    "powerctl reference show ref.toml",
    "powerctl profile --device twin:orin-nano --workload resnet18-train --modes 13 --out log.jsonl",
    "powerctl nvpmodel --root board",
    "powerctl doctor --root board",
    "wattfed simulate --task noop --fleet fleet.toml --per-round 3 --rounds 1 --workers 1",
    "wattfed simulate --task noop --fleet away.toml --per-round 3 --rounds 1 --workers 1",
    "wattfed simulate --task noop --fleet flash.toml --per-round 3 --rounds 1 --workers 1",
    "wattfed simulate --task noop --fleet fleet.toml --per-round 3 --rounds 3 --out-dir runs "
    "--name one --workers 1 --resume",
    "wattfed top runs/one --once",
    "wattfed report runs/one",
    "wattfed report compared",
    "wattfed compare --task noop --fleet fleet.toml --per-round 3 --rounds 2 --seeds 1 "
    "--strategies random,pace --all-rounds --jobs 1 --workers 1 --out compared",
    "wattfed-agent task add my_task.py --state-dir state",
)


def make(stack: ExitStack) -> Path:
    """A folder with all files, there as long as the stack."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="wattfed-studio-")))
    for module in (*_HEAVY, *COMMANDS.values()):
        importlib.import_module(module)
    code_version()  # takes seconds, once in a process
    for name, text in _WRITTEN.items():
        (folder / name).write_text(text)
    trace = {"active": [0.0, 500.0], "inactive": [400.0, 900.0], "finish_time": 1000.0}
    (folder / "behaviour.pkl").write_bytes(
        pickle.dumps({n: {**trace, "duration": 800.0, "model": "x"} for n in range(3)})
    )
    task = Path(__file__).resolve().parents[2] / "tests/own_app/my_task.py"
    shutil.copy(task, folder)
    for line in MAKES:
        found = tried(Door(line, None, partial(_make, folder)), line, longest_s=120.0)
        if found.word != "taken":
            raise AssertionError(f"{line}: {found}")
    return folder


def _make(folder: Path, line: str) -> str:
    os.chdir(folder)
    return run(shlex.split(line))


def run(line: list[str]) -> str:
    """Run a command in this process, which has its output in the file that is its stdout."""
    sys.argv = list(line)
    code: object = 0
    try:
        console.run(importlib.import_module(COMMANDS[line[0]]).cli)
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    return check_end(code, Path("/proc/self/fd/1").read_text(errors="replace"))
