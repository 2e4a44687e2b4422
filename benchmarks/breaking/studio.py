"""Files of each kind that our commands read, made by our commands, and the lines that read them."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import shlex
import shutil
import signal
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

from benchmarks.breaking.trying import Door, check_end, tried
from powerctl import console
from powerctl.doctor import torch_here
from wattfed.client.tasks.federated import federated
from wattfed.strategies.code_version import code_version
from wattfed.strategies.run_config import RunConfig

COMMANDS = {
    "powerctl": "powerctl.cli",
    "wattfed": "wattfed.server.cli",
    "wattfed-agent": "wattfed.client.agent.cli",
}
STOPPED = (
    "powerctl daemon",
    "powerctl characterize",
    "powerctl roofline measure",
    "wattfed watch",
    "wattfed flower",
    "wattfed-agent serve",
    "wattfed-agent top",
)
"""What goes on for long, or until it is told to stop: SIGTERM must end it with a line."""
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
    "agent.toml": 'device = "twin:orin-agx"\nlease_s = 1.5\n[defaults]\nlatency_s = 0.05\n'
    "batch_size = 2\n[limits]\nqueue_length = 10\n[plan]\nperiod_s = 2\n",
    "tokens": "# ours\n0123456789abcdef0123\n",
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
    "wattfed keys keys --certificate agent=127.0.0.1",
    "powerctl characterize --device twin:orin-nano --workload resnet18-train --vary workers=0,2 "
    "--repetitions 2 --out study",
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
    "powerctl restore --root board",
    "powerctl daemon --root board",
    "powerctl characterize --device twin:orin-nano --workload resnet18-train --vary workers=0,2 "
    "--repetitions 2 --out study",
    "wattfed watch runs/one --port 0",
    "wattfed-agent serve --config agent.toml --socket a.sock --state-dir state",
    "wattfed-agent serve --device twin:orin-agx --socket a.sock --listen 127.0.0.1:0 "
    "--tls-cert keys/agent.crt --tls-key keys/agent.key --token-file tokens",
    "wattfed keys keys --certificate another=127.0.0.1 --node one",
    "wattfed-agent status --address 127.0.0.1:9 --ca keys/ca.crt --token-file tokens",
)


_STOP_S = 4.0


def make(stack: ExitStack) -> Path:
    """A folder with all files, there as long as the stack."""
    folder = Path(stack.enter_context(TemporaryDirectory(prefix="wattfed-studio-")))
    for module in COMMANDS.values():
        importlib.import_module(module)
    code_version()  # takes seconds, once in a process
    federated(RunConfig(task="noop"), 1)  # so does the hash of its code
    _look_at_torch_once()
    for name, text in _WRITTEN.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    trace = {"active": [0.0, 500.0], "inactive": [400.0, 900.0], "finish_time": 1000.0}
    (folder / "behaviour.pkl").write_bytes(
        pickle.dumps({n: {**trace, "duration": 800.0, "model": "x"} for n in range(3)})
    )
    task = Path(__file__).resolve().parents[2] / "examples/quickstart/my_task.py"
    shutil.copy(task, folder)
    for line in MAKES:
        found = tried(Door(line, None, partial(_make, folder), longest_s=600.0), line)
        if found.word != "taken":
            raise AssertionError(f"{line}: {found}")
    return folder


def _look_at_torch_once() -> None:
    """Let doctor's look at torch, in a process that imports it, be the same for all cases."""
    says = torch_here._ask(120.0)
    torch_here._ask = lambda limit_s: says


def _make(folder: Path, line: str) -> str:
    os.chdir(folder)
    return check_end(exit_code(shlex.split(line)), said())


def read_by(line: str, folder: Path) -> dict[str, Path]:
    """The files that a command line names, also by what is in a file or folder that it names."""
    words = {*shlex.split(line), "runs/one" if "--resume" in line else ""}
    named = [folder / word for word in words if word and (folder / word).exists()]
    found = [one for path in named for one in ([path] if path.is_file() else path.rglob("*"))]
    for path in named:
        if path.suffix == ".toml":
            text = path.read_text()
            found += (one for one in folder.iterdir() if f'"{one.name}"' in text)
    return {
        str(path.relative_to(folder)): path
        for path in sorted(found)
        if not path.is_dir() or path.is_symlink()
    }


def put(name: str, data: bytes | Path) -> None:
    """Write a file here, or copy it, with the folders above it."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, Path):
        shutil.copy(data, path, follow_symlinks=False)
    else:
        path.write_bytes(data)
        path.chmod(0o600)  # as tokens and keys must be


def run(line: list[str], stop_s: float = _STOP_S, longest_s: float = math.inf) -> str:
    """Run a command in this process, which has its output in the file that is its stdout.

    SIGTERM stops it after a while: what runs until then, or for longer than it may.
    """
    stops_s = stop_s if " ".join(line[:3]).startswith(STOPPED) else longest_s
    if is_stopped := stops_s < math.inf:
        Timer(stops_s, os.kill, (os.getpid(), signal.SIGTERM)).start()
    return check_end(exit_code(line), said(), is_stopped=is_stopped)


def exit_code(line: list[str]) -> Any:
    """Run a command line in this process, and say how it ended."""
    sys.argv = list(line)
    code: object = 0
    try:
        console.run(importlib.import_module(COMMANDS[line[0]]).cli)
    except SystemExit as end:
        code = end.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def said() -> str:
    """What was said in this case."""
    return Path("/proc/self/fd/1").read_text(errors="replace")
