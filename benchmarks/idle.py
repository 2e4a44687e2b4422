"""What learning in idle time brings, what it costs, and that no request is late for it.

    python -m benchmarks.idle [--models resnet18,lstm] [--serve 120] [--json OUT]

Models are counted; what a twin then charges for a minibatch differs from the count, part by part,
by a random factor of up to 30 %. Time and power of all modes but those measured are predicted from
the count alone, after 3, 10 and 20 modes as the agent chooses and measures them, and from what five
rounds have measured instead, whose deadlines are random. An error is the mean over modes, or over
those of the predicted front, which offers name; coverage is the share of modes inside their 90 %
interval. Medians over models and units.

With ``--serve``, an agent on a twin in real time answers requests at a steady rate for so many
seconds without learning, then for as long while it measures a task. The models of both are small
and compute for real on this machine, and minibatches take as long as they would on the board.
"""

from __future__ import annotations

import json
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np

from benchmarks.agent_load import agent, serving_digits
from powerctl import console
from powerctl.boards import load_board
from powerctl.cost_model import Signature
from powerctl.device import DeviceWrapper
from powerctl.devices.twin import Twin
from powerctl.errors import PowerctlError
from powerctl.fulcrum.plans import cheapest
from powerctl.modes import ModeArrays, PowerMode
from powerctl.pagoda.counted import CountedModel
from powerctl.pareto import pareto_front
from powerctl.powertrain.correction import CorrectedPredictor
from powerctl.profiler import measure_mode
from powerctl.progress import Progress
from powerctl.workload import Workload
from wattfed.client.agent import rpc
from wattfed.client.agent.idle_modes import PROCEDURE, modes_to_measure
from wattfed.client.agent.own_tasks import OwnTasks
from wattfed.client.agent.proto import agent_pb2 as pb
from wattfed.client.agent.tensors import encode_tensor
from wattfed.client.tasks.federated import federated
from wattfed.client.worker.cost_models import CostModels
from wattfed.client.worker.costs import SignatureCosts
from wattfed.client.worker.execution import execute_plan
from wattfed.client.worker.measured_task import MeasuredRow
from wattfed.client.worker.mode_options import UNLEARNED, mode_options
from wattfed.strategies.run_config import RunConfig

AFTER = (3, 10, 20)
ROUNDS = 5
_OFF = 0.3
_NORMAL_90 = 1.645
_ROUND_S = 60.0  # of training, in the fastest mode
_BATCH_SIZE = 16
_MODELS = ("resnet18", "mobilenetv3", "lstm", "bert-base")
_OF_CASE = 4  # leading fields of a row, which say what it is of
_SERVED = "mobilenetv3-infer"
_TIMEOUT_S = 600.0
_OFFERS = 20
_LIMIT_W = 30.0
_TASK = Path(__file__).resolve().parents[1] / "tests/powerctl/task/tasks/stepwise.py"


@dataclass(frozen=True)
class Row:
    """How well all modes but those measured are predicted, and what measuring has cost."""

    board: str
    model: str
    seed: int
    after: str
    modes: int
    time_mape: float
    power_mape: float
    time_coverage: float
    power_coverage: float
    front_time_mape: float
    spent_s: float
    spent_j: float


class Unlike(DeviceWrapper):
    """A twin on which a workload is other work than was counted of it."""

    def __init__(self, twin: Twin, counted: Workload, truth: Workload) -> None:
        super().__init__(twin)
        self.counted, self.truth, self.twin = counted, truth, twin

    def execute(self, workload: Workload, step: Any = None) -> float:
        """Charge what the workload truly is."""
        return self.twin.execute(self.truth if workload == self.counted else workload, step)


def counted_workload(model: str) -> Workload:
    """The workload of a model as a task of one's own has it: by name and code, and counted."""
    counted = CountedModel.of(model, None, "train", "sgd-momentum").workload(_BATCH_SIZE)
    return replace(counted, name=f"{model}@{0:08x}-b{_BATCH_SIZE}", source=f"counted from {model}")


def otherwise(counted: Workload, rng: np.random.Generator) -> Workload:
    """Work each part of which differs from the count by up to 30 %."""
    signature = counted.signature
    assert signature is not None
    values = {field.name: float(getattr(signature, field.name)) for field in fields(Signature)}
    factors = np.exp(rng.uniform(-1, 1, len(values)) * math.log1p(_OFF))
    changed = {name: value * f for (name, value), f in zip(values.items(), factors, strict=True)}
    return replace(counted, name="truth", signature=replace(signature, **changed))


@dataclass(frozen=True)
class Case:
    """A counted workload on a board's twin that charges something else."""

    board: str
    model: str
    seed: int
    counted: Workload

    def device(self) -> Unlike:
        """The twin, of a unit of its own."""
        twin = Twin(load_board(self.board), unit=self.seed, random_state=self.seed)
        rng = np.random.default_rng((self.seed, len(self.model)))
        return Unlike(twin, self.counted, otherwise(self.counted, rng))

    def row(
        self,
        after: str,
        device: Unlike,
        predictor: CorrectedPredictor,
        measured: Sequence[PowerMode],
        spent: tuple[float, float] = (0.0, 0.0),
    ) -> Row:
        """How well a predictor knows the modes that were not measured."""
        done = set(measured)
        rest = [mode for mode in device.space if mode not in done]
        found = predictor.predict(ModeArrays.of(rest))
        true = np.array([device.twin.steady(mode, device.truth) for mode in rest]).T
        said = np.array([found.time_s, found.power_w])
        std = np.array([found.time_std, found.power_std])
        errors = 100 * np.abs(said / true - 1)
        error, front = errors.mean(axis=1), pareto_front(said[0], said[0] * said[1])
        inside = 100 * (np.abs(np.log(said / true)) <= _NORMAL_90 * std).mean(axis=1)
        return Row(
            *(self.board, self.model, self.seed, after, len(measured)),
            *(float(error[0]), float(error[1]), float(inside[0]), float(inside[1])),
            *(float(errors[0][front].mean()), *spent),
        )

    def idle(self, folder: Path, after: Sequence[int]) -> Iterator[Row]:
        """From the count, and after some modes are measured as an agent does it."""
        device, board = self.device(), load_board(self.board)
        costs = CostModels(folder / "idle", f"twin:{self.board}")
        yield self.row("counts", device, SignatureCosts().predictor(board, self.counted), ())
        task, done = costs.measured(board, self.counted), list[PowerMode]()
        began = (device.now(), device.energy_j())
        while len(done) < max(after):
            predicted = costs.predictor(board, self.counted).predict(device.space.arrays)
            for mode in modes_to_measure(task, device.space, predicted, max(after)):
                seen = measure_mode(device, self.counted, mode, PROCEDURE)
                facts = (mode.values, seen.time_s, seen.power_w, seen.n_minibatches)
                task.record([MeasuredRow(*facts, "idle", 0.0)])
                done.append(mode)
                if len(done) in after:
                    spent = (device.now() - began[0], device.energy_j() - began[1])
                    predictor = costs.predictor(board, self.counted)
                    yield self.row(f"{len(done)} modes", device, predictor, done, spent)

    def rounds(self, folder: Path) -> Row:
        """After some rounds, each in the modes of a plan from what is known then."""
        device, board = self.device(), load_board(self.board)
        costs = CostModels(folder / "rounds", f"twin:{self.board}")
        rng = np.random.default_rng(self.seed)
        for _ in range(ROUNDS):
            options = mode_options(costs.predictor, board, device.space, self.counted)
            front = options.front((0.0, 0.0, 0.0), math.inf)
            minibatches = math.ceil(_ROUND_S / front.time_s[0])
            slack = rng.uniform(1, float(front.time_s[-1] / front.time_s[0]))
            plan = cheapest(front, minibatches, slack * minibatches * float(front.time_s[0]))
            done = execute_plan(device, self.counted, plan, repeat(lambda: None))
            costs.record(board, self.counted, done.segments)
        measured = [PowerMode(*row.mode) for row in costs.measured(board, self.counted).read().rows]
        predictor = costs.predictor(board, self.counted)
        return self.row(f"{ROUNDS} rounds", device, predictor, measured)


def accuracy(
    board: str, models: Sequence[str], seeds: int, after: Sequence[int] = AFTER
) -> list[Row]:
    """The rows of some models, each on some units."""
    rows: list[Row] = []
    cases = [
        Case(board, model, seed, counted)
        for model in models
        for counted in [counted_workload(model)]
        for seed in range(seeds)
    ]
    with Progress("twins", len(cases)) as shown:
        for number, case in enumerate(cases, start=1):
            with tempfile.TemporaryDirectory() as folder:
                rows += [*case.idle(Path(folder), after), case.rounds(Path(folder))]
            shown.update(number)
    return rows


def offer_ms(board: str) -> tuple[float, float]:
    """Milliseconds of a first offer, from a count and from a measured table; the least of some."""
    counted, known = counted_workload("lstm"), load_board(board)
    space = known.space
    costs_ms: tuple[list[float], list[float]] = ([], [])
    found = SignatureCosts().predictor(known, counted).predict(space.arrays)
    with tempfile.TemporaryDirectory() as name:
        rows = [
            MeasuredRow(
                *(space.mode(i).values, float(found.time_s[i]), float(found.power_w[i])),
                *(40, "idle", 0.0),
            )
            for i in np.linspace(0, len(space) - 1, max(AFTER)).astype(int).tolist()
        ]
        CostModels(Path(name)).measured(known, counted).record(rows)
        for number in range(_OFFERS):
            other = replace(counted, name=f"count-{number}")  # that no offer was made for yet
            for costs, workload, took_ms in (
                (SignatureCosts(), other, costs_ms[0]),
                (CostModels(Path(name)), counted, costs_ms[1]),
            ):
                began_s = time.perf_counter()
                options = mode_options(costs.predictor, known, space, workload)
                options.front(UNLEARNED, _LIMIT_W)
                took_ms.append(1e3 * (time.perf_counter() - began_s))
    return min(costs_ms[0]), min(costs_ms[1])


class Requests:
    """Requests at a steady rate to an agent, and what became of each of them.

    Parameters
    ----------
    socket : str
        Of the agent.
    rate_hz, latency_s : float
        Requests in a second, and the budget of each.
    """

    def __init__(self, socket: str, rate_hz: float, latency_s: float) -> None:
        self.rate_hz, self.latency_s = rate_hz, latency_s
        self._channel = grpc.insecure_channel(f"unix:{socket}")
        self._predict = rpc.InferenceStub(self._channel).Predict
        sample = next(iter(federated(RunConfig(task="digits"), 1).central)).inputs[0]
        self._request = pb.PredictRequest(inputs=[encode_tensor(sample)])
        self._lock = threading.Lock()
        self._took_s: list[float] = []
        self._refused = 0

    def send(self, seconds: float) -> dict[str, float]:
        """Send them for so long; how many there were, were late, and took how long."""
        self._took_s, self._refused = [], 0
        due_s, end_s = time.perf_counter(), time.perf_counter() + seconds
        futures = []
        while due_s < end_s:
            time.sleep(max(0.0, due_s - time.perf_counter()))
            began_s = time.perf_counter()
            future = self._predict.future(self._request, timeout=_TIMEOUT_S)
            future.add_done_callback(lambda done, began_s=began_s: self._answered(done, began_s))
            futures.append(future)
            due_s += 1 / self.rate_hz
        for future in futures:
            future.exception()
        while len(self._took_s) + self._refused < len(futures):  # callbacks come a little later
            time.sleep(0.01)
        p50_ms, p99_ms = 1e3 * np.percentile(self._took_s, (50, 99))
        late = sum(took_s > self.latency_s for took_s in self._took_s)
        return {
            "requests": len(futures),
            "refused": self._refused,
            "late": late,
            "latency_p50_ms": float(p50_ms),
            "latency_p99_ms": float(p99_ms),
            "latency_max_ms": 1e3 * max(self._took_s),
        }

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _answered(self, future: grpc.Future, began_s: float) -> None:
        took_s = time.perf_counter() - began_s
        with self._lock:
            if future.exception() is None:
                self._took_s.append(took_s)
            else:
                self._refused += 1


def served(board: str, seconds: float, rate_hz: float, latency_s: float) -> list[dict[str, Any]]:
    """What becomes of requests without and with learning, and what the latter has come to know."""
    found = []
    for learns in (False, True):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "state").mkdir()
            own = OwnTasks(folder / "state").add(str(_TASK))
            (folder / "agent.toml").write_text(
                f'[idle]\ntask = "{own.name if learns else ""}"\nquiet_s = 2.0\n'
            )
            model, options = serving_digits(folder, latency_s)
            options = f"{options},workload={_SERVED}"
            device = ("--device", f"twin:{board}", "--config", str(folder / "agent.toml"))
            with agent(folder, *device, model, options) as (socket, _):
                requests = Requests(socket, rate_hz, latency_s)
                before = _known(socket, bool if learns else _anything)
                row = requests.send(seconds)
                after = _known(socket, _anything)
                requests.close()
            found.append(
                {
                    "learns": learns,
                    **row,
                    "modes": after.idle_modes - before.idle_modes,
                    "spent_s": after.spent_s - before.spent_s,
                    "spent_j": after.spent_j - before.spent_j,
                }
            )
    return found


def _anything(modes: int) -> bool:
    """Whether it is enough that so many modes were measured in idle time."""
    return True


def _known(socket: str, enough: Callable[[int], bool]) -> pb.TaskCosts:
    """What an agent knows of its task, once enough modes were measured."""
    give_up_s = time.monotonic() + _TIMEOUT_S
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        while True:
            status = rpc.PowerStub(channel).GetStatus(pb.StatusRequest(), timeout=_TIMEOUT_S)
            costs = next(iter(status.tasks), pb.TaskCosts())
            if enough(costs.idle_modes):
                return costs
            if time.monotonic() > give_up_s:
                raise PowerctlError(f"the agent has measured nothing: {status.idle}")
            time.sleep(0.2)


@click.command(help=__doc__)
@click.option("--board", default="orin-nano", show_default=True)
@click.option("--models", default=",".join(_MODELS), show_default=True, help="That are counted.")
@click.option(
    "--seeds", type=click.IntRange(1), default=5, show_default=True, help="Units of each."
)
@click.option("--serve", "seconds", type=float, default=0.0, help="Also a real agent, so long.")
@click.option("--rate", "rate_hz", default=5.0, show_default=True, help="Requests in a second.")
@click.option("--latency", "latency_s", default=0.5, show_default=True, help="Budget of one.")
@click.option("--json", "json_path", type=click.Path(), help="Also write it as JSON.")
def main(
    board: str,
    models: str,
    seeds: int,
    seconds: float,
    rate_hz: float,
    latency_s: float,
    json_path: str | None,
) -> None:
    """Run the benchmark."""
    rows = accuracy(board, models.split(","), seeds)
    console.print_table(
        ("from", "modes", "time %", "power %", "in 90 %: time", "power", "front %", "s", "J"),
        [_summary(rows, after) for after in dict.fromkeys(row.after for row in rows)],
    )
    of_count, of_table = offer_ms(board)
    click.echo(f"a first offer: {of_count:.2f} ms from a count, {of_table:.2f} ms from a table")
    serving = served(board, seconds, rate_hz, latency_s) if seconds else []
    if serving:
        click.echo()
        console.print_table([*serving[0]], [[*row.values()] for row in serving])
    if json_path:
        content = {
            "offer_ms": [of_count, of_table],
            "accuracy": [asdict(row) for row in rows],
            "serving": serving,
        }
        Path(json_path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _summary(rows: Sequence[Row], after: str) -> tuple[object, ...]:
    """The medians of the rows of one kind."""
    some = [row for row in rows if row.after == after]
    columns = [field.name for field in fields(Row)][_OF_CASE:]
    medians = [np.median([getattr(row, column) for row in some]) for column in columns]
    return (after, *map(float, medians))


if __name__ == "__main__":
    console.run(main)
