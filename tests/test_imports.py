"""Who may import whom, and what a command may load at start-up."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from powerctl.fakes.layout import FAKE_MARKER
from powerctl.fakes.making import make_fake_board
from tests.imports_of import imports_of

ROOT = Path(__file__).resolve().parents[1]
OURS = {"powerctl", "strategies", "client", "server"}
MAY_IMPORT = {
    "powerctl": {"powerctl"},
    "strategies": {"strategies", "powerctl"},
    "client": {"client", "strategies", "powerctl"},
    "server": {"server", "client", "strategies", "powerctl"},
}
# the server knows the model, its arrays and its evaluation; only the simulation knows the client
CLIENT_MODULES = {
    "wattfed.client.worker.model_arrays",
    "wattfed.client.tasks.federated",
    "wattfed.client.worker.charging",
}
# torch takes seconds to load, and a daemon or a fleet of simulated devices never needs it
KNOW_TORCH = {
    "powerctl/accelerator.py",
    "powerctl/characterization/real_bench.py",
    "powerctl/characterization/steps.py",
    "powerctl/characterization/tasks.py",
    "powerctl/task/data.py",
    "powerctl/task/process_memory.py",
    "powerctl/task/randomness.py",
    "powerctl/task/sample_losses.py",
    "powerctl/task/sgd.py",
    "powerctl/task/training.py",
    "powerctl/task/loop_thread.py",
    "powerctl/task/watching.py",
    "powerctl/pagoda/counted.py",
    "powerctl/pagoda/counting.py",
    "powerctl/pagoda/formulas.py",
    "powerctl/pagoda/microbenchmarks.py",
    "powerctl/pagoda/models.py",
    "powerctl/pagoda/networks.py",
    "powerctl/pagoda/operator_counter.py",
    "powerctl/pagoda/operators.py",
    "powerctl/pagoda/step_counting.py",
    "powerctl/torchvision_cpu.py",
}
KNOW_THE_CLIENT = {"server/commands/strategies.py", "server/run/calibration.py"}


def folder_of(name):
    """The folder at the root that a module lies in: all but powerctl are within ``wattfed``."""
    top, _, below = name.partition(".")
    return below.partition(".")[0] if top == "wattfed" else top


MODULES = [path for package in sorted(OURS) for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downwards(path):
    package = path.relative_to(ROOT).parts[0]
    for name, _ in imports_of(path):
        top = folder_of(name)
        assert top not in OURS or top in MAY_IMPORT[package], name
        if package == "powerctl":
            assert top not in ("flwr", "ray")
            assert top != "torch" or str(path.relative_to(ROOT)) in KNOW_TORCH
        if package == "server" and top == "client" and name not in CLIENT_MODULES:
            where = path.relative_to(ROOT)
            assert str(where) in KNOW_THE_CLIENT or where.parent.name == "engines", name


# each room of the server may import those before it; the two entry points at its top, all
SERVER_ROOMS = ["run", "engines", "comparison", "live", "deploy", "commands"]


@pytest.mark.parametrize("room", SERVER_ROOMS)
def test_imports_between_the_rooms_of_the_server_run_one_way(room):
    below = {"wattfed.client", "wattfed.strategies"}
    below |= {f"wattfed.server.{name}" for name in SERVER_ROOMS[: SERVER_ROOMS.index(room) + 1]}
    for path in (ROOT / "server" / room).rglob("*.py"):
        for name, _ in imports_of(path):
            assert folder_of(name) not in OURS - {"powerctl"} or name.startswith(tuple(below)), path


def test_fake_boards_are_known_to_the_device_registry_alone():
    """And to the command that makes them: the rest cannot tell one from a Jetson."""
    knows = {
        path.relative_to(ROOT).parts[:-1]
        for path in MODULES
        if any(name.startswith("powerctl.fakes") for name, _ in imports_of(path))
        and path.name != "jetson_board.py"
    }
    assert knows == {("powerctl", "devices"), ("powerctl", "fakes")}


def test_nothing_imports_by_the_names_that_an_app_may_have_for_its_own_folders():
    """An editable install shows them, a wheel does not."""
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT).stdout
    old = re.compile(r"(?m)^[ \"'>]*(?:from|import) (client|server|strategies)\b")
    spelt = [
        name
        for name in tracked.split()
        if name.endswith((".py", ".md", ".sh", ".toml", "Dockerfile"))
        and "tests/own_folders/" not in name
        and old.search((ROOT / name).read_text())
    ]
    assert spelt == []


@pytest.mark.parametrize("package", [*sorted(OURS), "wattfed"])
def test_a_package_defines_nothing_in_its_init(package):
    for path in (ROOT / package).rglob("__init__.py"):
        docstring, *listed = ast.parse(path.read_text()).body
        assert isinstance(docstring, ast.Expr), path
        for statement in listed:  # what is public, and nothing else
            names = [ast.unparse(target) for target in getattr(statement, "targets", ())]
            listing = isinstance(statement, ast.ImportFrom) or names == ["__all__"]
            assert listing or path.parent.name in LAZY, path


# public names are imported when they are used; before that, wattfed looks for its folders
LAZY = {"powerctl": 1, "wattfed": 2}  # statements beside imports


@pytest.mark.parametrize("package", LAZY)
def test_a_package_lists_its_public_names_for_type_checkers_and_for_use_alike(package):
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    rest = [s for s in body[1:] if not isinstance(s, (ast.Import, ast.ImportFrom))]
    *_, listed = rest
    assert isinstance(listed, ast.If) and ast.unparse(listed.test) == "TYPE_CHECKING"
    assert len(rest) == LAZY[package]
    checked = {}
    for line in listed.body:
        assert isinstance(line, ast.ImportFrom)
        checked |= dict.fromkeys((alias.name for alias in line.names), line.module)
        assert all(alias.name == alias.asname for alias in line.names)  # re-exported, not used
    (used,) = listed.orelse
    homes = ast.literal_eval(used.value.args[1])
    assert checked == {name: home for home, names in homes.items() for name in names.split()}


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("powerctl", {"numpy", "scipy", "torch", "flwr", "matplotlib", "rich"}),
        ("wattfed", {"scipy", "torch", "flwr", "ray", "matplotlib", "sklearn", "rich"}),
    ],
)
def test_help_loads_nothing_heavy(command, heavy):
    module = {"powerctl": "powerctl.cli", "wattfed": "wattfed.server.cli"}[command]
    code = (
        f"import sys; sys.argv = ['{command}', '--help']\n"
        f"from {module} import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout[-300:] + done.stderr
    assert "Examples:" in done.stdout


def test_the_daemon_loads_nothing_heavy(tmp_path):
    """It runs for good on a board whose memory is for training; no fake board's kernel either."""
    made = make_fake_board("orin-nano", "6", tmp_path / "board").root
    (made / FAKE_MARKER).unlink()  # plain files, as on a Jetson
    heavy = {"numpy", "scipy", "torch", "flwr", "matplotlib", "rich", "google", "grpc"}
    code = (
        f"import sys; sys.argv = ['powerctl', 'daemon', '--root', {str(made)!r}]\n"
        "import atexit, os, signal, threading\n"
        f"atexit.register(lambda: print(sorted({heavy!r} & set(sys.modules))))\n"
        "from powerctl.daemon.systemd import Notifier\n"
        "Notifier.ready = lambda self: os.kill(os.getpid(), signal.SIGTERM)\n"
        "from powerctl.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "serves at" in done.stderr, done.stderr
    assert done.stdout == "[]\n"
