"""The virtual bench: epochs of a simulated board, or of one whose table was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from powerctl.characterization.loading import (
    DataSet,
    Minibatch,
    cached_share,
    data_set,
    epoch_spread,
    modelled,
    storage_names,
)
from powerctl.characterization.places import AtPlace, OnDevice
from powerctl.characterization.plan import PREFETCH, Cell, Level
from powerctl.characterization.results import UNKNOWN, Epoch
from powerctl.cost_model import Signature, minibatch_cost
from powerctl.devices.opening import open_device
from powerctl.devices.table import TableDevice
from powerctl.devices.twin import Twin
from powerctl.errors import InvalidInput
from powerctl.modes import PowerMode
from powerctl.workload import Workload, load_workload, workload_names

_STORAGE = "ssd"


class TwinBench(AtPlace):
    """Runs epochs by the model of loading, in a moment.

    Parameters
    ----------
    spec : str
        ``twin:BOARD``; or ``table:FILE.csv``: then time and power of a mode are the measured ones;
        or ``jetson:DIR``, a fake board: its modes are set as a Jetson's, its costs are the twin's.
    workload : str
        What trains.
    infer_workload : str, optional
        What infers; by default the training workload's namesake, if there is one.
    board : str
        Of a table.
    seed : int
        Of the noise.
    """

    is_virtual = True

    def __init__(
        self,
        spec: str,
        workload: str,
        infer_workload: str | None = None,
        *,
        board: str | None = None,
        seed: int = 0,
    ) -> None:
        device = open_device(spec, board=board, random_state=seed)
        if not device.is_virtual:
            raise InvalidInput(f"{spec} is a real board: it runs a --task, not a --workload")
        self._place = OnDevice(device)
        self._found = device.mode()
        self.board = device.board
        self._costs = device if isinstance(device, (Twin, TableDevice)) else Twin(device.board)
        self._workloads = {"train": load_workload(workload)}
        if infer_workload is not None:
            self._workloads["infer"] = load_workload(infer_workload)
        self._seed = seed
        self._now_s = 0.0
        self.name = f"{workload} on {spec}, a simulated board"
        self.facts: Mapping[str, str] = {
            "task": workload,
            "machine": f"{self.board.title}, simulated ({spec})",
            "samples of an epoch": f"{self._data('train').samples}",
            "page cache": "empty before each run, as modelled",
            "loading": "modelled from published stalls of an AGX Xavier (POMACS 6(3) 44, 2.4)",
            "energy": f"from the power column of {spec.partition(':')[2]}"
            if isinstance(device, TableDevice)
            else "the cost model's; nothing here was measured on a Jetson",
        }
        self.baseline = Cell(storage=_STORAGE, mode=self.mode_levels(str(self._found))[0])
        self.levels: dict[str, Sequence[Level]] = {
            "workers": (0, 1, 2, 4),
            "storage": storage_names(),
            "batch": (1, 4, 16, 64),
            "mode": self.mode_levels("presets"),
        }
        if "infer" in self._workloads:
            self.levels["infer-batch"] = (1, 4, 16, 64)

    def check(self, configuration: Cell) -> None:
        """Raise for what the model does not have."""
        self._place.check(configuration.mode)
        if not configuration.observer:
            raise InvalidInput("a simulated board is observed at no cost: leave out observer")
        if configuration.workers and configuration.prefetch != PREFETCH:
            raise InvalidInput("the model of loading knows no prefetch: leave it out")
        if configuration.kind not in self._workloads:
            raise InvalidInput("no inference workload: give --infer-workload")
        self._minibatch(configuration, uncached=1.0)

    def expected_s(self, configuration: Cell, epochs: int) -> float:
        """Virtual seconds, by the model."""
        number = self._data(configuration.kind).samples / configuration.batch_size
        later = self._minibatch(configuration, self._uncached(configuration)).seconds
        return number * (self._minibatch(configuration, 1.0).seconds + (epochs - 1) * later)

    def run(self, configuration: Cell, repetition: int, epochs: int) -> tuple[Epoch, ...]:
        """Epochs with the noise of one device of the board."""
        self._place.apply(configuration.mode)
        levels = ", ".join(f"{name}={level!r}" for name, level in vars(configuration).items())
        name = f"Configuration({levels})"  # as ever: a study that goes on draws what it would have
        rng = np.random.default_rng([self._seed, repetition, *name.encode()])
        shares = [1.0] + [self._uncached(configuration)] * (epochs - 1)
        done = tuple(self._epoch(configuration, share, rng) for share in shares)
        self._now_s += sum(epoch.seconds for epoch in done)
        return done

    def now(self) -> float:
        """Virtual seconds that runs have taken so far."""
        return self._now_s

    def _epoch(self, how: Cell, uncached: float, rng: np.random.Generator) -> Epoch:
        data, minibatch = self._data(how.kind), self._minibatch(how, uncached)
        number = data.samples / how.batch_size
        noise = np.exp(epoch_spread() * rng.standard_normal(3))
        compute_s = number * minibatch.compute_s * float(noise[0])
        stall_s = number * minibatch.stall_s * float(noise[1])
        seconds = compute_s + stall_s
        return Epoch(
            seconds=seconds,
            stall_s=stall_s,
            start_s=stall_s / number,
            compute_s=compute_s,
            samples=data.samples,
            minibatches=int(np.ceil(number)),
            cpu_cores=minibatch.cpu_cores,
            gpu_share=minibatch.gpu_share,
            read_bytes=number * minibatch.read_bytes,
            energy_j=seconds * minibatch.power_w * float(noise[2]),
            observer_s=UNKNOWN,
        )

    def _minibatch(self, how: Cell, uncached: float) -> Minibatch:
        """The model's minibatch, brought to this device (or to the table) in this mode."""
        mode, workload = self._mode(how), self._workload(how)
        minibatch = modelled(
            self.board.hardware,
            _signature(workload),
            mode,
            how.batch_size,
            self._data(how.kind),
            workers=how.workers,
            storage=how.storage,
            uncached=uncached,
        )
        time_ratio, power_ratio = self._departure(mode, workload)
        return replace(
            minibatch,
            stall_s=minibatch.stall_s * time_ratio,
            compute_s=minibatch.compute_s * time_ratio,
            power_w=minibatch.power_w * power_ratio,
        )

    def _departure(self, mode: PowerMode, workload: Workload) -> tuple[float, float]:
        """How this device, or the table, departs from the cost model in a mode: time and power."""
        if isinstance(self._costs, Twin):
            time_s, power_w = self._costs.steady(mode, workload)
        else:
            if self._costs.table.batch_size is None:  # of the one that it was measured with
                workload = self._workloads[workload.kind]
            time_s, power_w = self._costs.measured(mode, workload)
        cost = minibatch_cost(
            self.board.hardware, _signature(workload), *mode.values, workload.batch_size
        )
        return time_s / float(cost.time_s), power_w / float(cost.power_w)

    def _uncached(self, how: Cell) -> float:
        return 1 - cached_share(self.board.name, self._data(how.kind))

    def _workload(self, how: Cell) -> Workload:
        return self._workloads[how.kind].with_batch_size(how.batch_size)

    def _data(self, kind: str) -> DataSet:
        return data_set(self._workloads[kind].name)

    def _mode(self, how: Cell) -> PowerMode:
        return self.board.mode(how.mode) if how.mode else self._found


def _signature(workload: Workload) -> Signature:
    assert workload.signature is not None  # all of the catalogue have one
    return workload.signature


def infer_namesake(workload: str) -> str | None:
    """The catalogue's inference workload of the same network, if there is one."""
    name = workload.removesuffix("-train") + "-infer"
    return name if name in workload_names() else None
