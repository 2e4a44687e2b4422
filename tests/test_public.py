"""The public names of both packages: there, documented, quick to import, and loaded when used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import powerctl
import wattfed

ROOT = Path(__file__).resolve().parents[1]
NAMES = [(package, name) for package in (powerctl, wattfed) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda one: getattr(one, "__name__", one))
def test_every_public_name_is_there_and_documented(package, name):
    thing = getattr(package, name)
    assert thing is getattr(import_module(thing.__module__), name)
    assert thing.__doc__ and name in dir(package)
    assert f"`{name}`" in (ROOT / "docs" / "python.md").read_text()


@pytest.mark.parametrize("package", [powerctl, wattfed])
def test_a_name_that_is_not_there_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match=f"'{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        exec(f"from {package.__name__} import nothing")


LIGHT = """
import sys
import powerctl, wattfed
mode = {"numpy", "scipy", "sklearn", "torch", "flwr", "pandas"} & set(sys.modules)
powerctl.GaussianPredictor, powerctl.solve, wattfed.RunConfig, wattfed.Gate
print(sorted(mode), sorted({"torch", "flwr"} & set(sys.modules)))
"""


@pytest.mark.processes
def test_importing_loads_nothing_heavy_and_the_device_side_never_loads_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[] []\n", done.stderr
