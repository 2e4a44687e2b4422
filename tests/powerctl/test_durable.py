from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from powerctl.durable import remove_partials, replace_file, replacing, write_output
from powerctl.errors import InvalidInput
from tests.full_disc import largest_file

pytestmark = pytest.mark.processes

WRITES_HALF = """
import sys, time
from powerctl.durable import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"new" * 100_000)
    file.flush()
    print("half", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "summary.json"
    replace_file(path, b"old")
    return path


def only_file_of(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_writer_that_is_killed_in_the_middle_leaves_the_old_file_whole(path):
    command = [sys.executable, "-c", WRITES_HALF, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert len(list(path.parent.iterdir())) == 2
    remove_partials(path.parent)
    assert only_file_of(path.parent) == path


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(path, error):
    with pytest.raises(error), replacing(path) as file:
        file.write(b"half")
        raise error
    assert only_file_of(path.parent).read_bytes() == b"old"


def test_on_a_full_disc_the_old_file_stays(path):
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        replace_file(path, b"new" * 1000)
    assert only_file_of(path.parent).read_bytes() == b"old"


def test_of_many_writers_one_wins_and_its_file_is_whole(path):
    contents = [bytes([n]) * 500_000 for n in range(8)]
    writers = [threading.Thread(target=replace_file, args=(path, c)) for c in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert only_file_of(path.parent).read_bytes() in contents


def test_a_link_of_ones_own_is_followed(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    replace_file(link, b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
def test_a_link_that_leads_to_itself_is_replaced(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    replace_file(tmp_path / "loop", b"new")
    assert (tmp_path / "loop").read_bytes() == b"new"


def test_a_link_of_somebody_elses_is_replaced(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    os.lchown(link, 12345, 12345)
    replace_file(link, b"new")
    assert not link.is_symlink() and link.read_bytes() == b"new"
    assert path.read_bytes() == b"old"


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    replace_file(pipe, b"told")
    assert os.read(reader, 100) == b"told"
    os.close(reader)
    with pytest.raises(OSError, match="No such device"):  # nobody reads: it is not waited for
        replace_file(pipe, b"told")
    assert only_file_of(tmp_path) == pipe and pipe.is_fifo()


def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"no/table.csv: cannot be written: No such file"):
        write_output(tmp_path / "no" / "table.csv", "")
    with pytest.raises(InvalidInput, match="cannot be written: Is a directory"):
        write_output(tmp_path, b"")
