"""Packages that wattfed needs, all the way down, with their licences, from installed metadata.

python -m release.licences > docs/licences.md
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_HEAD = """\
# Licences of what wattfed needs

Made by `python -m release.licences > docs/licences.md`, from the metadata of the versions in
`constraints.txt` on x86 Linux with Python 3.11, of the extras with `vision` only: jetson-stats
(AGPL-3.0), of `jetson`, is installed only where it is asked for, and nothing else needs it.

| package | version | licence |
|---|---|---|"""
_OURS = {"wattfed", "powerctl"}
_LONGEST = 60  # some packages put the whole text where its name belongs


@dataclass(frozen=True)
class Package:
    """An installed package that is needed."""

    name: str
    version: str
    licence: str


def needed(requirements: Iterable[str] = ("wattfed[vision]",)) -> list[Package]:
    """The packages of others that meet requirements, and what these need in turn, by name.

    Dependencies that are not installed (of other systems, say) are left out.
    """
    found: dict[str, Package] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            metadata = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = Package(name, metadata.version, licence(metadata))
        for wanted in {"", *requirement.extras} - {extra for child, extra in seen if child == name}:
            seen.add((name, wanted))
            waiting += [(Requirement(text), wanted) for text in metadata.requires or ()]
    return sorted((found[name] for name in found.keys() - _OURS), key=lambda package: package.name)


def licence(package: Distribution) -> str:
    """The licence that a package's metadata names."""
    metadata = package.metadata
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License :: ") and not text.endswith("OSI Approved")
    ]
    stated = (metadata.get("License") or "").strip().split("\n")[0]
    short = stated if len(stated) <= _LONGEST else ""
    return metadata.get("License-Expression") or ", ".join(classifiers) or short or "not stated"


def main() -> None:
    """Print the list as Markdown."""
    print(_HEAD)
    for package in needed():
        print(f"| {package.name} | {package.version} | {package.licence} |")


if __name__ == "__main__":
    main()
