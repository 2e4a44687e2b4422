import json
import time
from dataclasses import replace

import grpc
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from powerctl.boards import load_board
from powerctl.devices.host import HostDevice
from powerctl.devices.roots import open_sysfs
from powerctl.errors import InvalidInput, ModeNotInSpace
from powerctl.fakes.making import make_fake_board
from powerctl.fulcrum.interleave import Interleaver
from powerctl.fulcrum.turns import ServiceSpec
from powerctl.measurement import Measurement, MeasurementTable
from powerctl.modes import ModeArrays, PowerMode
from powerctl.powertrain.correction import FittedPredictor
from powerctl.powertrain.gaussian import GaussianPredictor
from powerctl.workload import Workload, load_workload
from tests.client.agent.conftest import process
from tests.powerctl.jetson.conftest import settings
from tests.powerctl.jetson.conftest import settings as board_settings
from tests.waiting import TIMEOUT_S
from wattfed.client.agent import tensors
from wattfed.client.agent.calls import ByteLimit, CallRefused, RateLimit
from wattfed.client.agent.cli import cli
from wattfed.client.agent.engine_jobs import Ticket
from wattfed.client.agent.members import Members
from wattfed.client.agent.opening import KeptDevice, open_kept
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.settings import ModelFile, parse_model, read_settings
from wattfed.client.agent.tensors import decode_tensor, encode_tensor
from wattfed.client.agent.turn_engine import TurnEngine
from wattfed.client.worker.charging import named_workload
from wattfed.client.worker.cost_models import CostModels
from wattfed.strategies.run_config import RunConfig

pytestmark = pytest.mark.processes

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8]
DTYPES += [torch.int8, torch.int16, torch.int32, torch.int64]
BATCH = Workload("mine", "infer", 4)


@pytest.fixture
def host():
    return HostDevice(load_board("orin-agx"))


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=4))
def test_a_tensor_comes_back_as_it_was_sent(dtype, shape):
    tensor = (10 * torch.rand(shape)).round().to(dtype)
    back = decode_tensor(encode_tensor(tensor))
    assert back.dtype == dtype
    torch.testing.assert_close(back, tensor, rtol=0, atol=0)


def test_a_transposed_tensor_comes_back_as_it_was_sent():
    tensor = torch.arange(6, dtype=torch.int16).reshape(2, 3).T
    assert torch.equal(decode_tensor(encode_tensor(tensor)), tensor)


@pytest.mark.parametrize("text", ["", "3x", "3x-1", "axb", "3:float33", "3x0"])
def test_inputs_that_cannot_be_read_are_told_how_to_be_written(text):
    with pytest.raises(InvalidInput, match="3x224x224"):
        tensors.parse_inputs(text)


def test_several_inputs_are_joined_by_a_plus():
    assert [str(spec) for spec in tensors.parse_inputs("1x8x8+128:int64")] == [
        "1x8x8:float32",
        "128:int64",
    ]


def test_a_bucket_fills_again_and_quiet_clients_are_forgotten():
    now = [0.0]
    limit = RateLimit(10, burst=2, clock=lambda: now[0])
    for _ in range(2):
        limit.take("a")
    with pytest.raises(CallRefused) as caught:
        limit.take("a")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    now[0] = 0.1
    limit.take("a")
    for client in range(10_000):
        limit.take(str(client))
    assert len(limit._buckets) <= 4096


def test_bytes_under_way_are_limited_and_given_back():
    limit = ByteLimit(100)
    with limit.held(60), pytest.raises(CallRefused), limit.held(60):
        pass
    with limit.held(60):
        pass


def test_a_model_is_written_with_its_options():
    file = parse_model("m=a.ts,inputs=3x4,latency=20ms,batch=4,largest=16", ModelFile())
    assert file == ModelFile("m", "a.ts", "", "3x4", 0.02, 4, 16)
    with pytest.raises(InvalidInput, match="unknown colour"):
        parse_model("m=a.ts,colour=red", ModelFile())
    with pytest.raises(InvalidInput, match="model m: latency 50: 50ms or 50s"):
        parse_model("m=a.ts,latency=50", ModelFile())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--latency", "50"), "--latency 50: 50ms or 50s"),
        (("--lease", "20"), "--lease 20: 20s or 20m"),
        (("--power", "nan"), "cannot read --power 'nan': write a power above 0"),
        (("--rate-limit", "-1"), "cannot read --rate-limit '-1': write a rate above 0"),
    ],
)
def test_an_agent_takes_quantities_with_their_units(flags, message):
    error = CliRunner().invoke(cli, ["serve", *flags]).exception
    assert isinstance(error, InvalidInput) and message in str(error)


def test_flags_go_before_the_file_and_unknown_keys_are_named(tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text(
        'device = "host:orin-nano"\nlease_s = 3\n[defaults]\nbatch_size = 4\n'
        '[limits]\nqueue_length = 7\n[[model]]\nname = "m"\npath = "m.pt2"\n'
    )
    settings = read_settings(file, lease_s=5.0, latency_s=0.2, models=("n=n.pt2",))
    assert (settings.device, settings.lease_s, settings.limits.queue_length) == (
        "host:orin-nano",
        5.0,
        7,
    )
    assert [(m.name, m.latency_s, m.batch_size) for m in settings.model] == [
        ("m", 0.2, 4),
        ("n", 0.2, 4),
    ]
    file.write_text("colour = 1\n")
    with pytest.raises(InvalidInput, match="unknown colour"):
        read_settings(file)


def test_the_host_runs_steps_in_real_time_and_charges_more_than_idle(host):
    took_s = host.execute(BATCH, lambda: time.sleep(0.05))
    assert took_s >= 0.05
    busy_w = host.energy_j() / host.now()
    idle = HostDevice(load_board("orin-agx"))
    idle.idle(0.05)
    assert busy_w > idle.energy_j() / idle.now() > 0


def test_a_mode_of_the_host_changes_its_estimate_and_only_modes_of_the_board_are_taken(host):
    host.apply(host.space.minimum)
    assert host.mode() == host.space.minimum
    with pytest.raises(ModeNotInSpace):
        host.apply(replace(host.space.minimum, cores=99))
    host.restore()
    assert host.mode() == host.space.maximum


class Clocks(HostDevice):
    """A host whose mode outlives the process, as a Jetson's does."""

    def __init__(self, file) -> None:
        super().__init__(load_board("orin-agx"))
        self._clocks = file
        if file.exists():
            self._mode = PowerMode(*json.loads(file.read_text()))
            self._found = self._mode

    def apply(self, mode: PowerMode) -> None:
        super().apply(mode)
        self._clocks.write_text(json.dumps(mode.values))


class Broken:
    """A job that no device can run."""

    name = "broken"

    def workload(self, size):
        raise SystemExit

    def begin(self, tickets):
        pass

    def run(self, tickets):
        pass

    def ended(self):
        pass


def test_a_device_thread_that_dies_refuses_what_waits_and_says_so(host):
    engine, outcomes = TurnEngine(host, Interleaver()), []
    engine.add_service(Broken(), ServiceSpec("broken", 5.0, 1, {1: 0.01}))
    for _ in range(2):
        engine.submit(Ticket("broken", None, 5.0, outcomes.append))
    engine.start()
    assert isinstance(engine.failed.exception(TIMEOUT_S), SystemExit)
    engine.submit(Ticket("broken", None, 5.0, outcomes.append))
    assert [outcome.reason for outcome in outcomes] == ["stopping"] * 3


def test_a_killed_agents_mode_is_undone_by_the_next(tmp_path):
    clocks, found = tmp_path / "clocks", tmp_path / "found.json"
    killed = KeptDevice(Clocks(clocks), found)
    killed.apply(killed.space.minimum)
    again = KeptDevice(Clocks(clocks), found)
    assert again.restored == again.mode() == again.space.maximum
    assert json.loads(clocks.read_text()) == list(again.space.maximum.values)
    assert not found.exists()


def test_a_jetson_keeps_what_it_found_itself_and_only_restores(tmp_path):
    """What it was found in is no mode: clocks between limits, memory that floats."""
    sysfs = make_fake_board("orin-nano", "6", tmp_path / "board")
    before = settings(sysfs)
    kept = open_kept(f"jetson:{sysfs.root}", tmp_path)
    kept.apply(kept.space.minimum)
    assert settings(sysfs) != before and not list(tmp_path.glob("*.json"))
    sysfs.heat(98)
    assert kept.excess_c() == pytest.approx(2.0), "three degrees before it slows itself down"
    sysfs.heat(47.0)
    kept.restore()
    assert settings(sysfs) == before
    kept.close()


APPLY = """
import sys, time
from pathlib import Path
from wattfed.client.agent.opening import open_kept
device = open_kept(sys.argv[1], Path(sys.argv[2]))
device.apply(device.space.minimum)
print("applied")
time.sleep(600)
"""


def test_a_board_that_a_killed_agent_has_changed_is_brought_back_by_the_next(tmp_path):
    board = make_fake_board("orin-agx", "6", tmp_path / "board")
    found, spec = board_settings(board), f"jetson:{board.root}"
    with process(APPLY, spec, str(tmp_path)) as agent:
        assert agent.stdout.readline() == "applied\n"
    assert board_settings(open_sysfs(board.root)) != found
    again = open_kept(spec, tmp_path)
    assert board_settings(open_sysfs(board.root)) == found and again.restored == again.mode()
    assert open_kept(spec, tmp_path).restored is None


def test_what_was_left_before_the_machine_started_anew_is_no_longer_true(tmp_path):
    found = tmp_path / "found.json"
    mode = load_board("orin-agx").space.minimum.values
    found.write_text(json.dumps({"mode": mode, "boot": "another"}))
    assert KeptDevice(Clocks(tmp_path / "clocks"), found).restored is None


def test_a_board_that_is_not_there_keeps_step_with_the_real_clock(tmp_path):
    device = open_kept("twin:orin-agx", tmp_path)
    began_s, before_s = time.monotonic(), device.now()
    device.apply(device.space.minimum)
    slow_s = device.execute(BATCH, lambda: None)
    device.apply(device.space.maximum)
    fast_s = device.execute(BATCH, lambda: None)
    assert slow_s > fast_s > 0
    assert slow_s + fast_s <= device.now() - before_s <= time.monotonic() - began_s
    idle_j = device.energy_j()
    time.sleep(0.05)
    assert device.energy_j() > idle_j


def test_what_is_measured_of_a_workload_goes_before_its_signature(tmp_path):
    board, workload = load_board("orin-agx"), load_workload("resnet18-train")
    knowledge = CostModels(tmp_path)
    fast, slow = (board.space.maximum, board.space.minimum)
    nominal = knowledge.predictor(board, workload).predict(ModeArrays.of([fast]))
    (tmp_path / "tables").mkdir()
    measured = [Measurement(fast, 0.5, 50.0), Measurement(slow, 9.0, 12.0)]
    MeasurementTable.of(measured).write(tmp_path / "tables" / "resnet18-train.csv")
    table = knowledge.predictor(board, workload).predict(ModeArrays.of([fast]))
    assert abs(table.time_s[0] - 0.5) < abs(nominal.time_s[0] - 0.5)
    (tmp_path / "predictors").mkdir()
    file = tmp_path / "predictors" / "resnet18-train.json"
    GaussianPredictor(kind="infer").fit(MeasurementTable.of(measured)).save(file)
    with pytest.raises(InvalidInput, match="predicts infer on orin-agx, not train"):
        knowledge.predictor(board, workload)


def test_what_was_learned_over_another_predictor_is_not_taken_over(tmp_path, host):
    config, folder = RunConfig(), tmp_path / "clients"
    folder.mkdir()
    (folder / "7-0.json").write_text('{"spent_j": 5.0, "loss": 1.0, "predictor": [1, 1, 3]}')

    def state():
        members = Members(host, folder, CostModels(tmp_path), OwnTasks(tmp_path))
        node = {"partition-id": 0, "num-partitions": 5, "run-id": "7"}
        return members.get(config.to_flower(), node, "").client.state

    assert state().predictor == (1, 1, 3)
    (tmp_path / "tables").mkdir()
    table = MeasurementTable.of([Measurement(host.space.maximum, 0.5, 50.0)])
    table.write(tmp_path / "tables" / f"{named_workload(config)}.csv")
    assert state().predictor == (0, 0, 0) and state().spent_j == 5


FIRST_ROUND = """
import sys
from pathlib import Path
from wattfed.client.agent.members import CostModels, Members, OwnTasks
from powerctl.devices.opening import open_device
from wattfed.strategies.protocol import RoundAssignment
from wattfed.strategies.run_config import RunConfig
folder = Path(sys.argv[1])
members = Members(open_device("host:orin-agx"), folder, CostModels(folder), OwnTasks(folder))
node = {"partition-id": 0, "num-partitions": 20, "run-id": "7"}
one = members.get(RunConfig().to_flower(), node, "").client
one.offer()
slow = {"sympy", "torch._dynamo"}  # a second and more of processor time
before = slow - {*sys.modules}
print(one.train(one.task.model(), RoundAssignment(0, 1), 1).minibatches, before & {*sys.modules})
"""


def test_what_a_first_round_needs_is_imported_before_its_clock_runs(tmp_path):
    with process(FIRST_ROUND, str(tmp_path)) as child:
        assert child.stdout.readline() == "1 set()\n"


def test_a_fitted_predictor_learns_the_factor_of_its_unit():
    modes = load_board("orin-agx").space.arrays.take(np.arange(0, 18_000, 1000))
    rows = [Measurement(modes.mode(i), 0.1 * i + 0.1, 20.0) for i in (0, 17)]
    fitted = FittedPredictor(GaussianPredictor().fit(MeasurementTable.of(rows)), 16)
    before = fitted.predict(modes)
    for i in range(12):
        fitted.partial_fit(modes.mode(i), 1.3 * before.time_s[i], before.power_w[i])
    after = fitted.predict(modes)
    np.testing.assert_allclose(after.time_s / before.time_s, 1.3, rtol=0.05)
    assert (after.time_std < before.time_std).all()
