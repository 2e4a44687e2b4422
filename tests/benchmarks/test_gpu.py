"""The benchmark of a GPU, rehearsed on the CPU: the same code with small networks."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, sharing
from powerctl.accelerator import Accelerator
from powerctl.errors import PowerctlError

pytestmark = pytest.mark.processes

RUN = ["managed", "native-threads"]  # processes of their own train alone, before
LOAD = ("--rate", "10", "--latency", "2", "--batch", "2", "--seconds", "1", "--size", "rehearsal")


def command(tmp_path, *arguments):
    out, log = tmp_path / "gpu.json", logging.getLogger("flwr")
    level = log.level
    ran = CliRunner().invoke(gpu.main, [*LOAD, *arguments, "--json", str(out)])
    log.setLevel(level)
    assert ran.exit_code == 0, ran.output
    return json.loads(out.read_text()), ran.stdout


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    return command(tmp_path_factory.mktemp("gpu"), "--accelerator", "cpu", "--mode", ",".join(RUN))


def test_a_rehearsal_says_that_it_was_on_no_gpu(rehearsed):
    found, table = rehearsed
    assert found["gpu"] is None and found["accelerator"] == "cpu"
    assert "no GPU: a rehearsal on the CPU" in table and found["failed"] == []


def test_both_networks_are_trained_and_named_with_their_origin(rehearsed):
    rows = rehearsed[0]["training"]
    assert [row["model"] for row in rows] == ["resnet18", "bert"]
    assert rows[0]["origin"].startswith("torchvision ")
    assert rows[1]["origin"].startswith(("transformers ", "powerctl.pagoda.networks"))
    assert all(row["minibatches_per_s"] > 0 for row in rows)


def test_beside_an_agent_and_beside_threads_requests_are_answered_beside_training(rehearsed):
    rows = rehearsed[0]["interleave"]
    assert [row["mode"] for row in rows] == RUN
    for row in rows:
        assert 0 < row["answered"] <= row["requests"]
        assert 0 < row["latency_p50_ms"] <= row["latency_p99_ms"] <= row["latency_max_ms"]
        assert 0 <= row["within_budget_pct"] <= 100
        assert row["train_minibatches_per_s"] > 0


def test_without_a_gpu_all_modes_are_those_of_a_cpu():
    modes = ["managed", "native-threads", "native-processes"]
    assert sharing.modes_of("all", Accelerator("cpu")) == modes


def test_energy_is_a_number_only_where_something_measures_it(rehearsed):
    found, _ = rehearsed
    energies = [row["energy_j_per_minibatch"] for row in found["training"]]
    energies += [row["energy_j"] for row in found["interleave"]]
    if found["energy"] == "no energy meter":
        assert energies == [None] * 4
    else:
        assert all(energy_j >= 0 for energy_j in energies)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_there_are_streams_and_the_board_is_metered(tmp_path):
    found, _ = command(tmp_path, "--accelerator", "cuda", "--mode", "managed,native-streams")
    assert found["gpu"] == torch.cuda.get_device_name(0)
    assert [row["mode"] for row in found["interleave"]] == ["managed", "native-streams"]
    assert all(row["train_minibatches_per_s"] > 0 for row in found["interleave"])


def test_a_part_that_fails_is_told_and_the_others_go_on():
    load = gpu.Load(rate_hz=10.0, latency_s=1.0, batch_size=1, seed=0)
    *_, found = gpu.run(Accelerator("nowhere"), "rehearsal", [], load, seconds=1.0)
    assert [one["part"] for one in found["failed"]] == ["resnet18", "bert"]
    assert all("has failed" in one["why"] for one in found["failed"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seconds", "0"], "--seconds must be positive, got 0"),
        (["--rate", "-1"], "--rate must be positive, got -1"),
        (["--latency", "nan"], "--latency must be positive, got nan"),
        (["--batch", "0"], "--batch must be positive, got 0"),
        (["--accelerator", "tpu"], "accelerator 'tpu'"),
        (["--accelerator", "cpu", "--mode", "native-streams"], "leave that mode out"),
        (["--mode", "managed,cooperative"], "unknown mode 'cooperative'"),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments, named):
    with pytest.raises(PowerctlError) as error:
        CliRunner().invoke(gpu.main, arguments, catch_exceptions=False)
    assert named in str(error.value) and "\n" not in str(error.value)
