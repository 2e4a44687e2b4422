"""What wattfed needs may be used with it."""

from __future__ import annotations

import re
from pathlib import Path

from release.licences import needed

LIST = Path(__file__).resolve().parents[2] / "docs" / "licences.md"


def test_nothing_that_is_needed_is_under_a_copyleft_licence_of_the_whole():
    packages = {package.name: package.licence for package in needed()}
    assert {"flwr", "torch", "cryptography", "numpy"} <= set(packages)
    strict = re.compile(r"(?<!L)\b(A?GPL|Affero|GNU General Public)", re.I)
    assert not {name: text for name, text in packages.items() if strict.search(text)}


def test_every_needed_package_is_in_the_list():
    listed = set(re.findall(r"^\| ([a-z0-9-]+) \|", LIST.read_text(), re.M))
    assert {package.name for package in needed()} <= listed
