from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from powerctl.characterization.observing import (
    ResourceObserver,
    bytes_read,
    children,
    cpu_seconds,
    gpu_load,
    memory_bytes,
)
from powerctl.characterization.page_cache import empty_cache

pytestmark = pytest.mark.processes

_WAITS = "import sys\n{work}\nprint(flush=True)\nsys.stdin.read()"


@pytest.fixture
def child():
    """Start a Python that does some work and then waits."""
    started = []

    def start(work):
        process = subprocess.Popen(
            [sys.executable, "-c", _WAITS.format(work=work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.communicate()


def test_a_childs_processor_time_counts_while_it_lives_and_once_it_ended(child):
    before = cpu_seconds()
    process = child("import time\nwhile time.process_time() < 0.3: pass")
    assert cpu_seconds() - before >= 0.28  # of a living process in ticks of 10 ms
    process.communicate()
    assert cpu_seconds() - before >= 0.28


def test_a_childs_memory_counts(child):
    before = memory_bytes()
    process = child("held = b'x' * 50_000_000")
    assert process.pid in children()
    assert memory_bytes() - before > 50_000_000


def test_disc_reads_of_this_process_and_its_children_count(child, tmp_path):
    file = tmp_path / "data"
    file.write_bytes(os.urandom(1_000_000))
    empty_cache("advise", [file])
    before = bytes_read()
    file.read_bytes()
    if bytes_read() == before:
        pytest.skip(f"{tmp_path} is not on a disc whose reads the kernel accounts")
    empty_cache("advise", [file])
    between = bytes_read()
    child(f"open({str(file)!r}, 'rb').read()")
    assert between - before >= 1_000_000
    assert bytes_read() - between >= 1_000_000


def test_the_observer_leaves_its_own_time_out_of_the_use_that_it_reports():
    with ResourceObserver(lambda: 0.5, period_s=0.001) as observer:
        begun_s = time.thread_time()  # of this thread alone: the observer computes too
        while time.thread_time() - begun_s < 0.05:
            pass
    usage = observer.usage
    assert usage.gpu_share == 0.5
    assert usage.memory_bytes > 10_000_000
    assert usage.observer_s > 0
    assert usage.cpu_cores > 0


def test_without_sampling_only_counters_are_read():
    with ResourceObserver(lambda: pytest.fail("sampled"), sampling=False) as observer:
        pass
    assert observer.usage.observer_s == 0
    assert observer.usage.memory_bytes != observer.usage.memory_bytes


@pytest.mark.parametrize("path", ["devices/gpu.0/load", "devices/platform/17000000.gpu/load"])
def test_a_jetsons_gpu_load_is_read(tmp_path, path):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text("985\n")
    assert gpu_load(tmp_path)() == 0.985
