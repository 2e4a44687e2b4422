from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

import pytest

from powerctl.errors import DeviceUnavailable, InvalidInput
from powerctl.ownership import InUse, lock_own, locked_by, open_own, own_folder
from tests.powerctl.others import OTHER, as_another, as_root


def let_in(folder):
    """Let others into a folder of pytest's."""
    for above in (folder, *folder.parents):
        if Path(tempfile.gettempdir()) in above.parents:
            above.chmod(0o755)


TAKEN = "process {} has it"


def test_missing_folders_are_made_and_ones_own_taken(tmp_path):
    own_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "way").symlink_to("a")
    own_folder(tmp_path / "way" / "b")


@as_root
@pytest.mark.parametrize("mode, owner", [(0o755, OTHER), (0o777, 0), (0o775, 0), (0o1777, OTHER)])
def test_a_folder_however_far_above_that_others_may_change_is_refused(tmp_path, mode, owner):
    above = tmp_path / "above"
    (above / "mine" / "deep").mkdir(parents=True)
    os.chown(above, owner, OTHER)
    above.chmod(mode)
    with pytest.raises(InvalidInput, match=f"{above}: others than root may change it"):
        own_folder(above / "mine" / "deep" / "new")
    assert not (above / "mine" / "deep" / "new").exists()


@as_root
def test_a_sticky_folder_of_roots_is_as_good_but_for_what_others_have_put_there(tmp_path):
    tmp_path.chmod(0o1777)
    own_folder(tmp_path / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.lchown(tmp_path / "link", OTHER, OTHER)
    with pytest.raises(InvalidInput, match="link: others than root"):
        own_folder(tmp_path / "link")


def test_a_ring_of_links_is_no_folder(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError):
        own_folder(tmp_path / "a")


def plant(path, kind, target):
    if kind == "link":
        path.symlink_to(target)
    elif kind == "second name":
        os.link(target, path)
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_what_is_no_file_of_ones_own_is_not_opened_and_a_lock_replaces_it(tmp_path, kind):
    target, path = tmp_path / "target", tmp_path / "lock"
    target.write_text("precious")
    plant(path, kind, target)
    with pytest.raises(InvalidInput):
        open_own(path, os.O_RDWR | os.O_TRUNC)
    os.close(lock_own(path, TAKEN))
    assert target.read_text() == "precious" and stat.S_ISREG(os.lstat(path).st_mode)


def test_a_folder_or_a_pipe_that_nobody_reads_is_no_file_to_write(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidInput, match="no file"):
            open_own(path, os.O_WRONLY)


@as_root
def test_a_file_of_another_users_is_not_opened(tmp_path):
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", OTHER, OTHER)
    with pytest.raises(InvalidInput, match=f"user {OTHER}"):
        open_own(tmp_path / "file", os.O_RDONLY)


def test_a_lock_is_one_processs_and_its_name_told(tmp_path):
    path = tmp_path / "lock"
    file = lock_own(path, TAKEN)
    assert locked_by(path) == str(os.getpid())
    with pytest.raises(InUse, match=f"process {os.getpid()} has it") as refusal:
        lock_own(path, TAKEN)
    assert isinstance(refusal.value, DeviceUnavailable)
    os.close(file)
    assert locked_by(path) is None
    os.close(lock_own(path, TAKEN))


@as_root
def test_no_other_user_can_lock_it(tmp_path):
    path = tmp_path / "lock"
    os.close(lock_own(path, TAKEN))
    let_in(tmp_path)
    with as_another(lambda: fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)) as said:
        assert "PermissionError" in said


@as_root
@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_lock_of_an_older_version_that_another_user_holds_is_replaced(tmp_path, how):
    let_in(tmp_path)
    path = tmp_path / "lock"
    path.write_text("999999999\n")
    path.chmod(0o644)
    with as_another(lambda: fcntl.flock(os.open(path, os.O_RDONLY), how)) as said:
        assert said == "done"
        assert locked_by(path) is None
        file = lock_own(path, TAKEN)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert locked_by(path) == str(os.getpid())
        os.close(file)


def test_a_lock_of_an_older_version_whose_process_lives_is_respected(tmp_path):
    path = tmp_path / "lock"
    path.write_text(f"{os.getpid()}\n")
    path.chmod(0o644)
    with open(path) as older:
        fcntl.flock(older, fcntl.LOCK_EX)
        with pytest.raises(InUse, match=f"process {os.getpid()} has it"):
            lock_own(path, TAKEN)
    os.close(lock_own(path, TAKEN))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
