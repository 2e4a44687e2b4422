from __future__ import annotations

import numpy as np
import pytest

from powerctl.boards import load_board
from powerctl.cost_model import idle_power_w, minibatch_cost
from powerctl.devices.opening import open_device
from powerctl.devices.twin import NO_VARIATION, Twin
from powerctl.errors import DeviceUnavailable, InvalidInput, ModeNotInSpace, UnknownName
from powerctl.workload import Workload, load_workload

BOARD = load_board("orin-agx")
RESNET = load_workload("resnet18-train")
MODE = BOARD.space.parse("8c/1190/624/2133")


def run(device, minibatches=50, mode=MODE):
    device.apply(mode)
    return [device.execute(RESNET) for _ in range(minibatches)]


def test_without_variation_it_is_the_cost_model():
    twin = Twin(BOARD, variation=NO_VARIATION)
    times = run(twin)
    cost = minibatch_cost(BOARD.hardware, RESNET.signature, *MODE.values, 16)
    assert times == pytest.approx([float(cost.time_s)] * 50)
    assert twin.now() == pytest.approx(sum(times))
    assert twin.energy_j() == pytest.approx(float(cost.power_w) * sum(times))


def test_the_same_unit_and_seed_repeat_and_others_differ():
    assert run(Twin(BOARD, unit=1, random_state=2)) == run(Twin(BOARD, unit=1, random_state=2))
    steady = [Twin(BOARD, unit=unit).steady(MODE, RESNET) for unit in range(20)]
    assert Twin(BOARD, unit=3, random_state=9).steady(MODE, RESNET) == steady[3]
    assert len(set(steady)) == 20
    spread = np.std(np.log(steady), axis=0)
    assert np.all((spread > 0.01) & (spread < 0.08))


def test_the_step_runs_once_per_minibatch_before_the_time_passes():
    twin = Twin(BOARD)
    seen = []
    for _ in range(3):
        twin.execute(RESNET, lambda: seen.append(twin.now()))
    assert seen[0] == 0.0 and len(seen) == 3 and seen[2] > seen[1] > 0


def test_power_settles_after_a_change_of_load():
    twin = Twin(BOARD, unit=5)
    twin.apply(MODE)
    twin.idle(10)
    windows = []
    for _ in range(4):
        start_s, start_j = twin.now(), twin.energy_j()
        while twin.now() - start_s < 1.0:
            twin.execute(RESNET)
        windows.append((twin.energy_j() - start_j) / (twin.now() - start_s))
    steady_w = twin.steady(MODE, RESNET)[1]
    assert windows[0] < windows[1] < windows[3]
    assert windows[3] == pytest.approx(steady_w, rel=0.02)


def test_idling_costs_idle_power_and_a_change_of_mode_time():
    twin = Twin(BOARD, variation=NO_VARIATION)
    twin.apply(BOARD.space.minimum)
    twin.idle(100)
    idle_w = idle_power_w(BOARD.hardware, *BOARD.space.minimum.values)
    assert twin.energy_j() == pytest.approx(100 * float(idle_w), rel=1e-6)
    real = Twin(BOARD)
    real.apply(BOARD.space.maximum)
    assert real.now() == 0
    real.apply(MODE)
    assert real.now() > 0


def test_restoring_returns_to_the_mode_found():
    twin = Twin(BOARD)
    found = twin.mode()
    run(twin, 2)
    assert twin.mode() == MODE
    twin.restore()
    assert twin.mode() == found


def test_what_it_cannot_do_is_said():
    twin = Twin(BOARD)
    with pytest.raises(ModeNotInSpace):
        twin.apply(load_board("orin-nano").space.maximum)
    with pytest.raises(InvalidInput, match="no signature"):
        twin.execute(Workload("secret", "train", 1))
    with pytest.raises(InvalidInput, match="idle"):
        twin.idle(-1)


def test_devices_open_by_their_specification(small_csv):
    assert open_device("twin:orin-nano").board.name == "orin-nano"
    assert len(open_device(f"table:{small_csv}").space) == 256
    with pytest.raises(UnknownName):
        open_device("twin:orin-banana")
    with pytest.raises(DeviceUnavailable, match="doctor"):
        open_device("jetson")
    for nonsense in ("", "twin", "table:", "moon:1"):
        with pytest.raises(UnknownName, match="twin:BOARD"):
            open_device(nonsense)
