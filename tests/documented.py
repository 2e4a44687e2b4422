"""The commands that README and docs show, and what each is written with."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("powerctl", "wattfed", "wattfed-agent", "flwr", "flower-superlink", "flower-supernode")
_BEFORE = r"(?:sudo )?(?:\.venv/bin/|/opt/wattfed/bin/)?"
_COMMAND = re.compile(rf"{_BEFORE}((?:{'|'.join(PROGRAMS)}|make|python -m)(?: .*)?)")


@dataclass(frozen=True)
class Command:
    """A command of a page, without what it is piped into and without remarks."""

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """Program and arguments."""
        return shlex.split(self.text, comments=True)

    @property
    def options(self) -> set[str]:
        """Its long options."""
        return {word.split("=")[0] for word in self.words if word.startswith("--")}


def commands(page: Path) -> list[Command]:
    """All commands in the indented and fenced blocks of a page, in order."""
    found, fenced = [], False
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not line.startswith("    "):
            continue
        text = line.strip()
        while text.endswith("\\"):
            text = text[:-1] + next(lines).strip()
        match = _COMMAND.fullmatch(text)
        if match:
            found.append(Command(page.name, re.split(r" [|>&] | && ", match[1])[0].strip()))
    return found


def links(page: Path) -> list[str]:
    """Targets of a page's links to files of the project."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def python_blocks(page: Path) -> list[str]:
    """The Python of each of a page's fenced blocks, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def python_code(page: Path) -> str:
    """All Python of a page's fenced blocks."""
    return "\n".join(python_blocks(page))
