"""The tree of exceptions in powerctl/errors.py is the one there is."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

from powerctl import errors

ROOT = Path(__file__).resolve().parents[1]


def written():
    """Kind and parent of each line of the tree in the docstring."""
    above, tree = [], {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"( {4,})(\w+)(?: {2,}\w|$)", line):
            depth = len(found[1]) // 4 - 1
            above[depth:] = [found[2]]
            tree[found[2]] = above[depth - 1] if depth else "ValueError"
    return tree


def defined():
    """All classes of the product below `PowerctlError`, and their first bases."""
    bases = {
        node.name: node.bases[0].id
        for package in ("powerctl", "strategies", "client", "server")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name)
    }
    tree, below = {"PowerctlError": bases["PowerctlError"]}, 0
    while below < len(tree):
        below = len(tree)
        tree |= {name: base for name, base in bases.items() if base in tree}
    return tree


def test_every_exception_that_a_person_can_mend_is_in_the_one_tree():
    assert written() == defined()


def test_an_error_of_a_worker_process_is_told_as_it_was_raised_there():
    for error in (
        errors.UnknownName("power", "joint", ["slack", "maxn"], " or a class"),
        errors.TaskFailed("no data", "Traceback"),
    ):
        there = pickle.loads(pickle.dumps(error))
        assert type(there) is type(error) and str(there) == str(error)
        assert getattr(there, "traceback", "") == getattr(error, "traceback", "")
