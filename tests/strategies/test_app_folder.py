"""What Flower sent goes before what lies in the folder in which a SuperLink was started."""

from __future__ import annotations

import sys

import pytest

from powerctl.task.loading import load_task
from wattfed.client.fleet import load_fleet
from wattfed.strategies.app_folder import app_folder, file_of_app, import_from_app_first

TASK = """
def make_model(): ...
def load_data(): ...
def train_step(): ...
def test(): ...
where = {!r}
"""


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The folder that Flower has sent, and the current one, each with a task and a fleet."""
    sent, here = tmp_path / "home" / "apps" / "me.mine.0.1.0.abc", tmp_path / "other"
    for clients, folder in enumerate((sent, here), start=1):
        folder.mkdir(parents=True)
        (folder / "task_of_two_apps.py").write_text(TASK.format(folder.name))
        (folder / "fleet.toml").write_text(f'[[group]]\nboard = "orin-nano"\ncount = {clients}\n')
    monkeypatch.chdir(here)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    # as in a worker of Ray
    monkeypatch.setattr(sys, "path", [str(here), *sys.path, str(sent)])
    yield sent
    sys.modules.pop("task_of_two_apps", None)


def test_the_task_and_the_fleet_are_those_of_the_app_that_was_sent(places):
    for _ in range(3):  # once a message
        import_from_app_first()
    assert load_task("task_of_two_apps").own.where == places.name
    assert len(load_fleet(file_of_app("fleet.toml"))) == 1
    assert sys.path.count(str(places)) == 2  # not once a message


@pytest.mark.parametrize("path", ["twenty-jetsons", "/tmp", "pkg.mod:Name", "nothing.toml"])
def test_what_did_not_come_with_the_app_is_named_as_it_is(places, path):
    assert file_of_app(path) == path


def test_outside_of_flower_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    before = list(sys.path)
    import_from_app_first()
    assert app_folder() is None and sys.path == before and file_of_app("x.toml") == "x.toml"
