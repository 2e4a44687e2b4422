"""Making a fake board of the catalogue: its tree of files as it comes out of a boot."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from powerctl.boards import Board, load_board
from powerctl.errors import InvalidInput
from powerctl.fakes.fake_sysfs import FakeSysfs
from powerctl.fakes.kernel import FakeState
from powerctl.fakes.layout import CPU, FAKE_MARKER, HOT_SURFACE_MILLI, Layout, make_link
from powerctl.jetson.nvpmodel import CONFIGURATION
from powerctl.ownership import own_folder
from powerctl.reading import read_toml

JETPACKS = {"4": "32.7.1", "5.0": "34.1.1", "5.1": "35.3.1", "6": "36.4.0", "7": "39.2.0"}
"""The L4T release that each faked JetPack has."""

_OF_CHIP = {"tegra210": ("4",), "tegra194": ("4", "5.1"), "tegra234": ("5.0", "5.1", "6", "7")}
_CARRIERS = {"p3701": "p3737-0000", "p3767": "p3768-0000", "p3668": "p3509-0000"}
_NANO_CARRIER = "p3449-0000-b00"
_LOWEST_KHZ = {"orin": 729_600, "xavier-agx": 1_200_000, "xavier-nx": 1_190_400, "nano": 0}
# Thermal zones, where they slow the board down and where they shut it down (degC; 0: not known).
_ZONES = {
    "orin": (("CPU", 99, 104.5), ("GPU", 99, 104.5), ("SOC0", 99, 104.5), ("tj", 99, 104.5)),
    "xavier-agx": (("CPU", 90, 95.5), ("GPU", 92.5, 98), ("PMIC-Die", 0, 0)),
    "xavier-nx": (("CPU", 90.5, 96), ("GPU", 91.5, 97), ("PMIC-Die", 0, 0)),
    "nano": (("CPU", 0, 0), ("GPU", 0, 0), ("PMIC-Die", 0, 0)),
}
_SHARES = (0.5, 0.25, 0.25)


_T = TypeVar("_T")


def make_fake_board(name: str, jetpack: str, folder: Path) -> FakeSysfs:
    """Make a fake board, in the state in which a boot leaves it: its default preset in force.

    Parameters
    ----------
    name : str
        Board of the catalogue, such as ``orin-agx``.
    jetpack : str
        ``4``, ``5.0``, ``5.1`` (or ``5``), ``6`` or ``7``; clocks, presets and paths follow it.
    folder : Path
        Where; must be empty or not there yet.

    Raises
    ------
    InvalidInput
        If the board has no such JetPack, or the folder holds something.
    """
    jetpack = "5.1" if jetpack == "5" else jetpack
    raw = read_toml(resources.files("powerctl") / "boards" / f"{load_board(name).name}.toml")
    chip = raw["compatible"][0].partition(",")[2]
    if jetpack not in _OF_CHIP.get(chip, ()):
        choices = ", ".join(_OF_CHIP.get(chip, ())) or "none"
        raise InvalidInput(f"{name} with JetPack {jetpack} cannot be faked; there is: {choices}")
    board = load_board(name, JETPACKS[jetpack])
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} is not empty; give a new folder")
    own_folder(folder)
    state = _state(board, chip, jetpack, raw)
    release = next(entry for entry in raw["release"] if entry["l4t"] == board.l4t)
    _write_static(folder, state, raw, _configuration(board, state, release["preset"]))
    (folder / FAKE_MARKER).write_text(json.dumps(vars(state)), encoding="utf-8")
    sysfs = FakeSysfs(folder)
    sysfs.nvpmodel(state.preset)
    return sysfs


def _state(board: Board, chip: str, jetpack: str, raw: dict[str, Any]) -> FakeState:
    cores = list(range(len(board.space.cores)))
    sizes = [1] * len(cores) if jetpack in ("6", "7") else raw["cluster_sizes"]
    policies = [[cores.pop(0) for _ in range(size)] for size in sizes]
    ladder = list(board.space.cpu_khz)
    default = next(preset for preset in board.presets if preset.is_default)
    masks = {} if chip == "tegra210" else {"tpc_pg_mask": default.tpc_pg_mask}
    if raw["modules"][0].startswith("p3767"):
        masks["fbp_pg_mask"] = 2
    if jetpack == "7":
        masks["gpu_pg_mask"] = 0  # which values NVIDIA's presets have was not found
    return FakeState(
        board=board.name,
        l4t=JETPACKS[jetpack],
        chip=chip,
        jetpack=jetpack[0],
        policies=policies,
        cpu_khz=ladder,
        gpu_hz=list(board.space.gpu_hz),
        mem_hz=list(board.space.mem_hz),
        rails=_rails(board),
        zones=[[name, 1000 * slow, 1000 * stop] for name, slow, stop in _of(_ZONES, board)],
        online=[1] * len(board.space.cores),
        cpu_limits={str(policy[0]): [ladder[0], ladder[-1]] for policy in policies},
        gpu_limits=[0, board.space.gpu_hz[-1]],
        masks=masks,
        preset=default.id,
    )


def _of(table: dict[str, _T], board: Board) -> _T:
    """What a table has for a board, by how its name begins."""
    return next(value for name, value in table.items() if board.name.startswith(name))


def _rails(board: Board) -> list[list[Any]]:
    """Label, address, channel and share of the power: those of the total add up to 1."""
    in_total = [rail.label for rail in board.rails if rail.in_total]
    count = len(in_total)
    shares = _SHARES if count == 3 else (1 / count,) * count
    share = dict(zip(in_total, shares, strict=True))
    return [[r.label, r.address, r.channel, share.get(r.label, 0.3)] for r in board.rails]


def _configuration(board: Board, state: FakeState, presets: list[dict[str, Any]]) -> str:
    """The installed nvpmodel configuration, with the limits as NVIDIA's file has them."""
    layout = Layout(state.chip, state.jetpack)
    cores = range(len(state.online))
    lowest = _of(_LOWEST_KHZ, board)
    lines = [f"# {board.title}, L4T {state.l4t}: made by powerctl fake-board", ""]
    lines += ["< PARAM TYPE=FILE NAME=CPU_ONLINE >"]
    lines += [f"CORE_{core} /{CPU}/cpu{core}/online" for core in cores]
    for mask in state.masks:
        kind = mask.partition("_")[0].upper()
        lines += ["", f"< PARAM TYPE=FILE NAME={kind}_POWER_GATING >"]
        lines += [f"{mask.upper()} /{layout.mask_file(layout.gpu_alias, mask)}"]
    for i, policy in enumerate(state.policies):
        folder = f"/{CPU}/cpu{policy[0]}/cpufreq"
        lines += ["", f"< PARAM TYPE=CLOCK NAME=CPU_{i} >"]
        lines += [f"MAX_FREQ {folder}/scaling_max_freq", f"MIN_FREQ {folder}/scaling_min_freq"]
    lines += ["", "< PARAM TYPE=CLOCK NAME=GPU >"]
    lines += [f"MAX_FREQ /{layout.devfreq}/max_freq", f"MIN_FREQ /{layout.devfreq}/min_freq"]
    lines += ["", "< PARAM TYPE=CLOCK NAME=EMC >", f"MAX_FREQ /{layout.emc_cap}"]
    for preset in presets:
        lines += ["", f"< POWER_MODEL ID={preset['id']} NAME={preset['name']} >"]
        lines += _power_model(state, preset, lowest)
    default = next(preset["id"] for preset in presets if preset.get("default"))
    lines += ["", f"< PM_CONFIG DEFAULT={default} >"]
    return "\n".join(lines)


def _power_model(state: FakeState, preset: dict[str, Any], lowest: int) -> list[str]:
    cores, cpu_khz = preset.get("cores", len(state.online)), preset.get("cpu_khz", -1)
    lines = [f"CPU_ONLINE CORE_{core} {int(core < cores)}" for core in range(len(state.online))]
    for mask in state.masks:
        value = preset.get("tpc_pg_mask", 0) if mask == "tpc_pg_mask" else state.masks[mask]
        lines.append(f"{mask.partition('_')[0].upper()}_POWER_GATING {mask.upper()} {value}")
    for i, policy in enumerate(state.policies):
        if policy[0] < cores:
            lines += [f"CPU_{i} MIN_FREQ {lowest}", f"CPU_{i} MAX_FREQ {cpu_khz}"]
    lines += ["GPU MIN_FREQ 0", f"GPU MAX_FREQ {preset.get('gpu_hz', -1)}"]
    return [*lines, f"EMC MAX_FREQ {preset.get('mem_hz', 0)}"]


def _write_static(root: Path, state: FakeState, raw: dict[str, Any], configuration: str) -> None:
    """Write what never changes: who the board is, its presets, and symbolic links."""
    module = raw["modules"][0]
    carrier = _CARRIERS.get(module[:5], _NANO_CARRIER)
    boards = f"nvidia,{carrier}+{module}"
    if module.startswith("p2888"):  # names its kit only, and the module in the source's name
        boards = "nvidia,p2972-0000"
    major, _, minor = state.l4t.partition(".")
    files = {
        "proc/device-tree/model": f"{raw['title']} (fake)\0",
        "proc/device-tree/compatible": f"{boards}\0nvidia,{state.chip}\0",
        "proc/sys/kernel/random/boot_id": "00000000-0000-4000-8000-000000000001\n",
        "etc/nv_tegra_release": f"# R{major} (release), REVISION: {minor}, GCID: 0, BOARD: fake\n",
        CONFIGURATION: configuration + "\n",
        f"{CPU}/present": f"0-{len(state.online) - 1}\n",
    }
    files |= _zones(state)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    layout = Layout(state.chip, state.jetpack)
    addresses = sorted({rail[1] for rail in state.rails})
    for path, target in layout.links(addresses).items():
        (root / target).mkdir(parents=True, exist_ok=True)
        make_link(root, path, target)
    for address in addresses:
        name = "ina3221x" if state.jetpack == "4" else "ina3221"
        (root / f"sys/bus/i2c/devices/{address}/name").write_text(f"{name}\n", encoding="utf-8")


def _zones(state: FakeState) -> dict[str, str]:
    """The names of the thermal zones and their trip points."""
    files = {}
    suffix = "-thermal" if state.jetpack in ("6", "7") else "-therm"
    for i, (name, slow, stop) in enumerate(state.zones):
        folder = f"sys/class/thermal/thermal_zone{i}"
        files[f"{folder}/type"] = name if "-" in name else f"{name}{suffix}"
        points = [(kind, at) for kind, at in (("passive", slow), ("critical", stop)) if at]
        for number, (kind, milli) in enumerate(points):
            files[f"{folder}/trip_point_{number}_type"] = kind
            files[f"{folder}/trip_point_{number}_temp"] = f"{milli:g}"
    if Layout(state.chip, state.jetpack).warns_of_hot_surface:
        folder = "sys/class/thermal/thermal_zone0"
        files |= {f"{folder}/trip_point_2_type": "passive"}
        files |= {f"{folder}/trip_point_2_temp": str(HOT_SURFACE_MILLI)}
        files |= {f"{folder}/cdev0_trip_point": "0", f"{folder}/cdev1_trip_point": "2"}
    return files
