"""README and docs are true: links lead somewhere, commands run, options exist, tests are there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests import warm
from tests.documented import PAGES, ROOT, Command, commands, links, python_blocks, python_code
from tests.strategies.offers_of import offer, rng
from wattfed.strategies.offers import Offers

pytestmark = pytest.mark.processes

COMMANDS = [command for page in PAGES for command in commands(page)]
ELSEWHERE = {command.text for command in COMMANDS if command.page != "README.md"}
CLICK = {
    "powerctl": "powerctl.cli",
    "wattfed": "wattfed.server.cli",
    "wattfed-agent": "wattfed.client.agent.cli",
}
# not run here, and why; their options are checked all the same
NOT_RUN = {
    r"make ": "the targets are the suite itself, or a run of it",
    r"python -m benchmarks": "minutes, and measured tables that are not part of the project",
    r"python -m ": "makes the file that is checked elsewhere",
    r"flwr |flower-": "several hosts; tests/server/test_flower.py and test_faults.py run them",
    r"wattfed-agent .*--socket": "two agents that go on; tests/server/test_agents.py has one",
    r"wattfed-agent (?!serve --model|serve --device|predict digits --count|status|top)": "needs "
    "keys; tests/client/agent runs them",
    r"wattfed simulate .*--workers ray": "needs a cluster; test_ray_workers.py has one",
    r"wattfed simulate .*--log|tensorboard": "needs a tracker; test_tracking.py writes to them",
    r"wattfed watch": "stays; tests/server/live runs it",
    r"powerctl (doctor|nvpmodel|restore|daemon)": "a Jetson; tests/powerctl/jetson runs them",
    r"powerctl board new": "a board's report; tests/powerctl/doctor makes one",
    r"powerctl (fake-board|profile --device jetson)": "the same",
    r"powerctl roofline measure": "half a minute of the whole machine",
    r"powerctl tune mobilenetv3": "tens of seconds; its tests run it",
    r"powerctl reference build": "the table of a person's own measurements",
    r"powerctl profile .*--until": "forty modes; the README's line runs with twenty",
    r"powerctl (characterize|calibrate)": "a study of minutes",
}
# what makes a line that takes long end soon, at the end of it
SHORTER = {
    r"wattfed simulate": "--rounds 1",
    r"wattfed compare": "--rounds 1 --seeds 1 --jobs 1",
    r"wattfed top": "--once",
    r"wattfed-agent top": "--frames 1",
}
_TASK = """
import torch
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))


def load_data(partition_id, num_partitions, batch_size):
    points = torch.randn(40, 2, generator=torch.Generator().manual_seed(partition_id))
    data = torch.utils.data.TensorDataset(points, (points[:, 0] > 0).long())
    loaders = (torch.utils.data.DataLoader(data, batch_size) for _ in range(2))
    return tuple(loaders)


def train(net, trainloader, epochs, lr, device):
    optimizer = torch.optim.SGD(net.to(device).parameters(), lr=lr)
    for _ in range(epochs):
        for points, labels in trainloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(points.to(device)), labels.to(device)).backward()
            optimizer.step()


def test(net, testloader, device):
    right = [(net(x.to(device)).argmax(1) == y.to(device)).float().mean() for x, y in testloader]
    return {"mAP": sum(right) / len(right)}


target = ("mAP", "max")
"""
_MODEL = """
import torch

def make_model():
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4, 2))

make = make_model
"""


def is_run(command: Command) -> bool:
    return not any(re.match(pattern, command.text) for pattern in NOT_RUN)


def words_of(command: Command) -> list[str]:
    """Program and arguments, with what makes it shorter."""
    more = [words for pattern, words in SHORTER.items() if re.match(pattern, command.text)]
    return [*command.words, *" ".join(more).split()]


def click_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words call, and its own arguments."""
    command, rest = import_module(CLICK[words[0]]).cli, words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@lru_cache
def help_of(*command: str) -> str:
    program = str(Path(sys.executable).parent / command[0])
    done = warm.run([program, *command[1:], "--help"])
    assert done.returncode == 0, done.stderr
    return done.stdout


def name(command: Command) -> str:
    return f"{command.page}: {command.text}"


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_every_option_of_a_command_exists(command):
    words = command.words
    if words[0] in CLICK:
        found, arguments = click_command(words)
        assert not isinstance(found, click.Group), f"{words} is no command"
        found.make_parser(click.Context(found)).parse_args([*arguments])
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text()
    elif words[0] == "python":
        ours = (ROOT / f"{words[2].replace('.', '/')}.py").exists()
        main = getattr(import_module(words[2]), "main", None) if ours else None
        known = main.params if isinstance(main, click.Command) else ()
        options = {option for item in known for option in (*item.opts, *item.secondary_opts)}
        assert command.options <= options
    else:
        parts = [word for word in words[1:3] if re.fullmatch("[a-z]+", word)]
        parts = parts[:2] if words[1] == "supernode" else parts[:1]
        known = help_of(words[0], *(parts if words[0] == "flwr" else ()))
        short = {"--name"} if "--name" not in known else set()  # Flower 1.30 has no names
        assert command.options - short <= set(re.findall(r"--[a-z-]+", known))


def of_the_agent(command: Command) -> bool:
    return command.words[0] == "wattfed-agent" and is_run(command)


def of_others(command: Command) -> bool:
    """Without what the README has of another page, where it is run."""
    if command.page == "README.md" and command.text in ELSEWHERE:
        return False
    return command.words[0] != "wattfed-agent" and is_run(command)


def pages_with(wanted: Callable[[Command], bool]) -> list[Path]:
    """Without that on extending: tests/test_extending.py runs it, from a package of its own."""
    pages = [page for page in PAGES if page.name != "extend.md"]
    return [page for page in pages if any(map(wanted, commands(page)))]


# in place of lines that take long, or are on another page
_PROFILE = "powerctl profile --device twin:orin-agx --workload resnet18-train --out run.jsonl"
_SIMULATE = "wattfed simulate --rounds 1 --against random:maxn"
PREPARED = {
    "README.md": _SIMULATE,
    "agent.md": _SIMULATE,
    "compare.md": _SIMULATE,
    "fleets.md": _SIMULATE,
    "predict.md": f"{_PROFILE} --modes 10",
    "watch.md": _SIMULATE,
}
_FLEET = """
[[group]]
board = "orin-nano"
count = 8
"""


@pytest.fixture
def at_home(tmp_path, monkeypatch, small_csv):
    """A folder with all that the pages say a person has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "my_mod.py").write_text(_MODEL)
    (tmp_path / "my_task.py").write_text(_TASK)
    for name in ("my-fleet.toml", "robots.toml"):
        (tmp_path / name).write_text(_FLEET)
    for name in ("all-modes.csv", "measured.csv"):
        shutil.copy(small_csv, tmp_path / name)


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """Copy to the working folder what a page takes as done; a command runs once for all pages."""

    @lru_cache
    def made(command: str) -> Path:
        folder, home = tmp_path_factory.mktemp("made"), Path.cwd()
        os.chdir(folder)
        run(command.split())
        os.chdir(home)
        return folder

    def prepare(page: Path) -> None:
        if page.name in PREPARED:
            shutil.copytree(made(PREPARED[page.name]), Path.cwd(), dirs_exist_ok=True)

    return prepare


def run(words: list[str]) -> None:
    done = CliRunner().invoke(import_module(CLICK[words[0]]).cli, words[1:])
    assert done.exit_code == 0, f"{words}\n{done.output}\n{done.exception!r}"
    assert done.output


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("page", pages_with(of_others), ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_order(page, prepare):
    prepare(page)
    for command in filter(of_others, commands(page)):
        run(words_of(command))


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("page", pages_with(of_the_agent), ids=lambda page: page.name)
def test_an_agent_serves_and_answers_as_a_page_has_it(page, prepare, tmp_path_factory, monkeypatch):
    prepare(page)
    exec(python_code(page), {})
    home = tmp_path_factory.mktemp("agent")  # a socket's path must be short
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    agent = Path(sys.executable).with_name("wattfed-agent")
    with contextlib.ExitStack() as served:
        for command in filter(of_the_agent, commands(page)):
            if command.words[1] == "serve":
                served.close()
                served.enter_context(serving([agent, *command.words[1:]]))
            else:
                run(words_of(command))


@contextlib.contextmanager
def serving(command: list[str | Path]) -> Iterator[None]:
    with warm.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "serving at" not in (line := process.stderr.readline()):
                assert line, f"{command} ended with {process.wait()}"
            yield
        finally:
            process.terminate()
            process.communicate()
    assert process.returncode == 0


@pytest.mark.usefixtures("at_home")
def test_the_examples_from_python_work_and_print_what_the_page_says(capsys, caplog):
    page, made = ROOT / "docs" / "python.md", dict[str, object]()
    for block in python_blocks(page):
        if find_spec("pandas") or "to_pandas" not in block:
            exec(block, made)
    printed, number = capsys.readouterr(), r"\d+(\.\d+)?"
    first = re.sub(number, "N", printed.out.splitlines()[0])
    assert first in re.sub(number, "N", page.read_text()) and not printed.err
    assert not caplog.records  # not a line of Flower's
    assert made["expected"].power_w[made["front"]].min() <= 30 and str(made["mode"])
    assert not find_spec("pandas") or len(made["rounds"]) == len(made["result"].rows)
    assert made["alone"].figures["power_w"] <= 30 and made["beside"].batch_sizes["infer"] > 1
    offers = Offers.of([offer(i) for i in range(9)])
    assert [a.client for a in made["policy"].select(offers, 3, 1, rng())] == [0, 1, 2]


def test_what_is_not_run_is_still_shown_somewhere():
    stale = [p for p in NOT_RUN if not any(re.match(p, command.text) for command in COMMANDS)]
    optional = {r"powerctl (characterize|calibrate)", r"python -m "}
    assert set(stale) <= optional


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "examples" / "README.md"], ids=lambda page: page.name
)
def test_every_link_leads_to_a_file(page):
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert not missing


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_section_leads_to_one(page):
    text = page.read_text(encoding="utf-8")
    for path, section in re.findall(r"\]\(([\w./-]*)#([^)]+)\)", text):
        assert section in anchors(page.parent / path if path else page)


def test_every_page_is_in_the_navigation_of_the_site():
    shown = set((ROOT / "docs" / "index.md").read_text(encoding="utf-8").split())
    assert {page.stem for page in PAGES if page.parent.name == "docs"} - shown == {"index"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    for path, _, test in re.findall(r"`(tests/[\w/]+\.py)(::(\w+))?", text):
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"{path} has no {test}"
