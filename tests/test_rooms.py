"""Nothing is imported in a circle, neither between files nor between rooms; no name is twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.imports_of import imports_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("powerctl", "strategies", "client", "server")


def modules() -> Iterator[tuple[str, Path]]:
    """Our modules by the name that others import them by, but for what is generated."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if "proto" not in parts and parts[-1] != "__init__":
                yield ".".join(parts if package == "powerctl" else ["wattfed", *parts]), path


MODULES = dict(modules())


@cache
def trees() -> dict[str, ast.Module]:
    """What is written in each module."""
    return {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


@cache
def imported(name: str) -> set[str]:
    """Modules of ours that a module imports, within functions too, but not for types alone."""
    found: set[str] = set()
    for module, names in imports_of(MODULES[name], for_types=False):
        found |= {module, *(f"{module}.{taken}" for taken in names)}
    return (found & MODULES.keys()) - {name}


def room(name: str) -> str:
    """The folder of a module; one that lies beside a package's folders is a room by itself."""
    path = MODULES[name].relative_to(ROOT)
    return name if len(path.parts) == 2 else name.rpartition(".")[0]


@pytest.mark.parametrize("place", [str, room], ids=["files", "rooms"])
def test_nothing_is_imported_in_a_circle(place):
    graph: dict[str, set[str]] = defaultdict(set)
    for name in MODULES:
        graph[place(name)] |= {place(other) for other in imported(name)} - {place(name)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_libraries_import_no_command():
    commands = (
        "powerctl.commands",
        "powerctl.cli",
        "wattfed.server.commands",
        "wattfed.server.cli",
    )
    for name in MODULES:
        if not name.startswith(commands) and not name.endswith(".cli"):
            assert [other for other in imported(name) if other.startswith(commands)] == [], name


def test_a_public_name_is_defined_once():
    places: dict[str, list[str]] = defaultdict(list)
    for name, tree in trees().items():
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                places[node.name].append(name)
    # each command line has a group and an entry point
    assert {
        name: all for name, all in places.items() if len(all) > 1 and name not in ("main", "cli")
    } == {}


def test_a_docstring_begins_with_more_than_four_words():
    short = [
        f"{name}: {first}"
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and (first := (ast.get_docstring(node) or "").partition("\n")[0])
        and len(first.split()) <= 4
    ]
    assert short == []
