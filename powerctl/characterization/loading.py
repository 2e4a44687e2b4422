"""A model of data loading on the boards: what workers, storage and the page cache do to an epoch.

It extends the cost model, whose signatures were measured with four workers and the data set in the
page cache: there the two agree. Loading is the host's work, spread over the workers, and waiting
for the disc; without workers it comes before the device's work, with them it goes on beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from powerctl.cost_model import (
    CORE_NORM,
    Hardware,
    Signature,
    active_power_w,
    idle_power_w,
    minibatch_stages,
    norm,
    smooth_minimum,
)
from powerctl.errors import InvalidInput, UnknownName
from powerctl.modes import PowerMode
from powerctl.reading import read_toml

_FILE = resources.files("powerctl.characterization") / "loading.toml"


@dataclass(frozen=True)
class DataSet:
    """What is loaded: samples of an epoch, their bytes on disc, and the files that they lie in."""

    samples: int
    gb: float
    files: int


@dataclass(frozen=True)
class Minibatch:
    """A modelled minibatch: seconds of waiting and computing, and the module's mean watts."""

    stall_s: float
    compute_s: float
    power_w: float
    cpu_cores: float
    gpu_share: float
    read_bytes: float

    @property
    def seconds(self) -> float:
        """Seconds of waiting and computing together."""
        return self.stall_s + self.compute_s


def storage_names() -> tuple[str, ...]:
    """The discs that there are published figures of."""
    return tuple(_constants()["storage"])


def data_set(workload: str) -> DataSet:
    """The data of a workload of the catalogue, by what stands before the last dash of its name."""
    known = _constants()["data"]
    name = workload.rpartition("-")[0]
    if name not in known:
        raise UnknownName("data set of workload", name or workload, known)
    entry = known[name]
    return DataSet(entry["samples"], entry["gb"], entry.get("files", entry["samples"]))


def cached_share(board: str, data: DataSet) -> float:
    """Share of a data set that is still in the page cache in later epochs."""
    constants = _constants()
    if board not in constants["memory_gb"]:
        raise InvalidInput(f"{_FILE}: no memory_gb of board {board}")
    left_gb = constants["memory_gb"][board] - constants["reserved_gb"]
    return float(min(max(left_gb / data.gb, 0.0), 1.0))


def epoch_spread() -> float:
    """Relative standard deviation of the time of an epoch."""
    return float(_constants()["epoch_spread"])


def modelled(
    hardware: Hardware,
    signature: Signature,
    mode: PowerMode,
    batch_size: int,
    data: DataSet,
    *,
    workers: int,
    storage: str,
    uncached: float,
) -> Minibatch:
    """A minibatch in a mode.

    Parameters
    ----------
    hardware, signature, mode, batch_size
        As of `cost_model.minibatch_cost`.
    data : DataSet
        What is loaded.
    workers : int
        Of the DataLoader; 0 loads before each minibatch instead of beside it.
    storage : str
        One of `storage_names`.
    uncached : float
        Share of the samples that come from the disc: 1 in a first epoch.
    """
    stages = minibatch_stages(hardware, signature, *mode.values, batch_size)
    loaders = max(workers, 1)
    read_bytes, read_s = _reading(storage, data, batch_size, uncached)
    host_s = float(stages.host_core_s) / _parallel(stages.spare_cores, signature, loaders)
    device_s = float(stages.device_s)
    load_s = host_s + read_s / loaders  # reads of several workers overlap
    if workers == 0:
        time_s = load_s + device_s
    else:
        time_s = float(norm(load_s, device_s, signature.overlap_norm))  # type: ignore[arg-type]
    at = stages._replace(time_s=stages.time_s * 0 + time_s)
    _, f, g, _ = mode.values
    active_w = sum(active_power_w(hardware, signature, at, f, g))
    return Minibatch(
        stall_s=time_s - device_s,
        compute_s=device_s,
        power_w=float(idle_power_w(hardware, *mode.values) + active_w),
        cpu_cores=float(at.host_busy_s + at.launch_s) / time_s,
        gpu_share=float(at.gpu_s) / time_s,
        read_bytes=read_bytes,
    )


def _reading(storage: str, data: DataSet, batch_size: int, uncached: float) -> tuple[float, float]:
    """Bytes and seconds that one loader reads for a minibatch."""
    discs = _constants()["storage"]
    if storage not in discs:
        raise UnknownName("storage of the twin", storage, discs)
    share = uncached * batch_size / data.samples
    size, files = 1e9 * data.gb * share, data.files * share
    return size, size / discs[storage]["bytes_per_s"] + files * discs[storage]["file_s"]


def _parallel(spare_cores: Any, signature: Signature, loaders: int) -> float:
    """Cores' worth of loading that so many loaders give; with four it is the cost model's own."""
    constants = _constants()
    gain = (loaders / constants["measured_workers"]) ** constants["worker_exponent"]
    usable = spare_cores * 0 + signature.loader_cores * gain
    return float(smooth_minimum(spare_cores, usable, CORE_NORM))


@cache
def _constants() -> dict[str, Any]:
    return read_toml(_FILE)
