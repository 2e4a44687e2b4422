"""A cluster of two real nodes on this machine trains what one process does, whoever of it dies."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from tests.server.comparison.running import run as run_grid
from tests.waiting import await_state
from wattfed.server import cli
from wattfed.server.comparison.grid import Comparison
from wattfed.server.engines.simulation import simulate
from wattfed.server.engines.workers import WorkerDied
from wattfed.strategies.run_config import RunConfig

pytest.importorskip("ray", reason="Ray is not installed here")
pytestmark = pytest.mark.processes

FLEET = '[[group]]\nboard = "orin-agx"\ncount = 8\n'
BESIDE = """
import os
import time
from pathlib import Path


def tell(folder, what):
    \"\"\"Write down who trains, and wait as the test asks for it.\"\"\"
    import ray

    folder = Path(folder)
    node = "none"
    if ray.is_initialized():
        node = ray.get_runtime_context().get_node_id()
    (folder / f"{what}-{node}-{os.getpid()}").touch()
    while (folder / f"hold-{node}").exists():
        (folder / f"held-{node}").touch()
        time.sleep(0.01)
    awaited = folder / f"await-{what}"
    while awaited.exists() and len(list(folder.glob(f"{what}-*"))) < int(awaited.read_text()):
        time.sleep(0.01)
"""
TASK = """
import os

import torch
from beside import tell
from torch import nn


def make_model():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def load_data(partition_id, num_partitions):
    generator = torch.Generator().manual_seed(partition_id)
    x = torch.randn(8 * (1 + partition_id), 4, generator=generator)
    return list(zip(x.split(8), (x[:, 0] > 0).long().split(8)))


def train(net, trainloader, epochs, lr, folder, partition_id, fatal=-1):
    tell(folder, "train")
    if partition_id == fatal:
        os._exit(7)
    if partition_id == 5:
        raise ValueError("five cannot")
    optimizer = torch.optim.SGD(net.parameters(), lr)
    for x, y in trainloader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()


@torch.no_grad()
def test(net, testloader, folder):
    tell(folder, "test")
    return {"loss": sum(float(nn.functional.cross_entropy(net(x), y)) for x, y in testloader)}
"""


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core."""
    from ray._private import services
    from ray.cluster_utils import Cluster

    look, cluster = services.get_node, Cluster()

    def await_node(*of_whom):  # Ray itself gives up after 30 s, which are few on a busy machine
        def found():
            with suppress(RuntimeError):
                return look(*of_whom)

        return await_state(found)

    with (
        TemporaryDirectory(prefix="ray-", dir="/tmp") as cluster.folder,  # sockets: short names
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", cluster.folder)  # where it notes its address
        Path(cluster.folder, "ray").mkdir()
        patch.setenv("RAY_worker_niceness", "0")  # else they starve beside other tests
        patch.setattr(services, "get_node", await_node)
        add_node(cluster, include_dashboard=False, include_log_monitor=False, no_monitor=True)
        add_node(cluster)
        yield cluster
        cluster.shutdown()


def add_node(cluster, **more):
    """Start a node with folders of its own, as on a host of its own."""
    before = signal.getsignal(signal.SIGTERM)
    folder = f"{cluster.folder}/{len(cluster.list_all_nodes())}"
    more |= {"num_cpus": 1, "object_store_memory": 80 * 2**20, "temp_dir": folder}
    cluster.add_node(wait=False, **more)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def config(tmp_path):
    """The run of a task in a folder that no node looks into, which tells there who trains."""
    (tmp_path / "told").mkdir()
    (tmp_path / "beside.py").write_text(BESIDE)
    (tmp_path / "mine.py").write_text(TASK)
    (tmp_path / "fleet.toml").write_text(FLEET)
    return RunConfig(
        task=str(tmp_path / "mine.py"),
        fleet=str(tmp_path / "fleet.toml"),
        workload="mobilenetv3-train",
        settings=(("folder", str(tmp_path / "told")),),
        strategy="random",
        per_round=8,
        rounds=3,
        local_epochs=1,
        evaluate="clients",
        evaluate_share=1.0,
        out_dir=str(tmp_path / "runs"),
        workers=1,
    )


def on(cluster, config):
    return replace(config, workers=f"ray:{cluster.address}", name="shared")


def nodes(told, what):
    return {path.name.split("-")[1] for path in told.glob(f"{what}-*")}


def test_a_node_that_dies_and_one_that_joins_leave_the_bits_of_one_process(
    cluster, config, tmp_path
):
    alone = simulate(config, name="alone")
    told = tmp_path / "told"
    for path in told.iterdir():
        path.unlink()
    (told / "await-train").write_text("2")  # the first round is one of two nodes
    dies = next(iter(cluster.worker_nodes))
    hold, before = told / f"hold-{dies.node_id}", signal.getsignal(signal.SIGTERM)

    def kill():
        await_state((told / f"held-{dies.node_id}").exists)
        cluster.remove_node(dies, allow_graceful=False)  # SIGKILL, while it trains

    killing = threading.Thread(target=kill)

    def after(row):
        assert signal.getsignal(signal.SIGTERM) == before
        if row.round == 1:
            hold.touch()
            killing.start()
        if row.round == 2:
            killing.join()
            add_node(cluster)
            (told / "await-train").write_text("3")

    said = logging.getLogger("flwr").handlers[0]
    lines = []
    said.emit, emit = lambda record: lines.append(record.getMessage()), said.emit
    try:
        shared = simulate(on(cluster, config), after)
    finally:
        said.emit = emit
    assert alone.rows == shared.rows and alone.ledger.reports == shared.ledger.reports
    one, two = (torch.load(run.folder / "model.pt") for run in (alone, shared))
    assert all(torch.equal(one[name], two[name]) for name in one)
    everyone = {cluster.head_node.node_id, *(n.node_id for n in cluster.worker_nodes)}
    assert nodes(told, "train") == everyone | {dies.node_id}
    assert nodes(told, "test") <= nodes(told, "train")  # and none here
    assert any("died; its clients are trained again" in line for line in lines)
    assert sum(line.startswith("client 5: ") for line in lines) == 3  # once in each round


def test_the_runs_of_a_comparison_go_over_the_same_actors(cluster, config, tmp_path):
    grid = Comparison(
        base=replace(on(cluster, config), name="", rounds=1),
        strategies=("random",),
        powers=("maxn",),
        per_round=(6, 8),
        seeds=(0, 1),
        metric="loss",
        targets=(0.01,),
    )
    (tmp_path / "told" / "await-train").write_text("2")
    folder, ran = run_grid(tmp_path / "shared", grid, jobs=0)
    assert len(ran) == 4
    assert len(list((tmp_path / "told").glob("train-*"))) == 2  # processes, in all four
    alone = replace(grid, base=replace(grid.base, workers=1))
    others = run_grid(tmp_path / "alone", alone)[0].results(grid)
    assert [one.rows for one in folder.results(grid)] == [two.rows for two in others]


def test_clients_that_end_whoever_trains_them_end_the_run_with_their_numbers(
    cluster, config, monkeypatch
):
    monkeypatch.setattr("wattfed.server.engines.ray_workers._TRIES", 1)
    fatal = replace(config, settings=(*config.settings, ("fatal", 3)))
    with pytest.raises(WorkerDied, match="1 actors died, .* while they trained client 3"):
        simulate(on(cluster, fatal))


def test_a_node_with_other_code_or_libraries_is_not_used(cluster, config, monkeypatch):
    monkeypatch.setattr("torch.__version__", "1.0+cpu")
    there = torch.version.__version__.partition("+")[0]
    with pytest.raises(WorkerDied, match=f"no node .* torch is {there} there and 1.0 here"):
        simulate(on(cluster, config))


def test_what_cannot_be_joined_is_said_in_a_line(call, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("simulate", "--task", "mine.py", "--set", "folder=.", "--fleet", "fleet.toml")
    done = call(cli.main, *words, "--workers", "ray:127.0.0.1:9")
    assert done.returncode == 2
    assert "no Ray cluster answers at 127.0.0.1:9: [Errno 111]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = call(cli.main, *words, "--workers", "many")
    assert "workers is a number of processes, ray or ray:HOST:PORT, got 'many'" in done.stderr
