"""The documentation site is whole: made without a warning, every link leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

import powerctl
import wattfed
from powerctl.cli import cli as powerctl_cli
from wattfed.client.agent.cli import cli as agent_cli
from wattfed.server.cli import cli as wattfed_cli

for package in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(package)
pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's folder; a page, link, section or docstring that Sphinx warns of is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value is not None:
                self.links.add(unquote(value))
            elif name == "id" and value is not None:
                self.anchors.add(value)


def test_every_link_and_every_anchor_of_a_link_is_there(site):
    pages = {path: Page(path) for path in site.glob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            file, _, anchor = link.partition("#")
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            if file.startswith(("http:", "https:", "data:")):
                continue
            known = target in pages and (not file or file.endswith(".html"))
            if not target.exists() or (known and anchor not in pages[target].anchors):
                broken.append(f"{path.name}: {link}")
    assert len(pages) > 20 and not broken


def test_pages_load_nothing_from_elsewhere(site):
    """Links lead out; scripts, styles and pictures do not."""
    for path in site.glob("*.html"):
        assert 'src="http' not in path.read_text(encoding="utf-8")


def commands_of(command: click.Command, words: str) -> Iterator[str]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands_of(child, f"{words} {name}")


def test_the_help_of_every_command_is_in_the_reference(site):
    page = Page(site / "commands.html")
    programs = {"wattfed": wattfed_cli, "wattfed-agent": agent_cli, "powerctl": powerctl_cli}
    for program, group in programs.items():
        for words in commands_of(group, program):
            assert words.replace(" ", "-") in page.anchors, words
            assert f"Usage: {words} " in (site / "commands.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", [powerctl, wattfed], ids=lambda package: package.__name__)
def test_every_public_name_is_in_the_reference(site, package):
    names = {f"{package.__name__}.{name}" for name in package.__all__}
    assert names <= Page(site / "api.html").anchors
