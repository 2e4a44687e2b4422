"""What `powerctl characterize` runs, and where: a task here, or a workload of a simulated board."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from powerctl.commands.options import Command, accelerator_option
from powerctl.commands.steps import settings_option
from powerctl.quantities import parse_sizes

if TYPE_CHECKING:
    from powerctl.characterization.bench import Bench

SAMPLES = "samples"  # folder of a study's data, unless it is somewhere else


@dataclass(frozen=True)
class BenchOptions:
    """What a command line says of device, model and data; None where it does not say."""

    device: str
    task: str | None
    settings: tuple[str, ...]
    model: str | None
    dataset: str | None
    input: str | None
    samples: int | None
    data: str | None
    cache: str
    workload: str | None
    infer_workload: str | None
    board: str

    def open(self, folder: Path, seed: int) -> Bench:
        """The bench; a study in `folder` keeps its data there."""
        if ":" in self.device:
            return self._virtual(seed)
        return self._real(Path(self.data) if self.data else folder / SAMPLES, seed)

    def _virtual(self, seed: int) -> Bench:
        from powerctl.characterization.virtual_bench import TwinBench, infer_namesake

        for name in ("task", "settings", "model", "dataset", "input", "samples", "data"):
            if getattr(self, name):
                flag = name.replace("settings", "set")
                raise click.UsageError(f"--{flag} runs for real; a simulated board has --workload")
        workload = self.workload or "resnet18-train"
        infer = self.infer_workload or infer_namesake(workload)
        return TwinBench(self.device, workload, infer, board=self.board, seed=seed)

    def _real(self, data: Path, seed: int) -> Bench:
        from powerctl.characterization.real_bench import RealBench
        from powerctl.characterization.tasks import load_task
        from powerctl.task.settings import parse_settings

        for name in ("workload", "infer_workload"):
            if getattr(self, name) is not None:
                flag = name.replace("_", "-")
                raise click.UsageError(f"--{flag} is of a simulated board: --device twin:BOARD")
        task = load_task(
            self.task,
            data,
            settings=parse_settings(self.settings),
            model=self.model,
            dataset=self.dataset,
            shape=None if self.input is None else parse_sizes(self.input, "--input"),
        )
        return RealBench(task, self.device, samples=self.samples, empty=self.cache, seed=seed)


def with_bench(command: Command) -> Command:
    """Give a command the options of what runs on what; it receives them as `options`."""

    @click.option(
        "--device",
        default="here",
        show_default=True,
        help="Or jetson, twin:BOARD, table:FILE.csv, jetson:DIR.",
    )
    @click.option("--task", show_default="images", help="digits, images, my_task.py or pkg.mod.")
    @settings_option
    @accelerator_option
    @click.option("--model", help="Another model: pkg.module:make, or a name of torchvision.")
    @click.option("--dataset", help="Other data: pkg.module:make.")
    @click.option("--input", help="A generated picture as the model takes it: 3,224,224.")
    @click.option("--samples", type=click.IntRange(1), help="So many make an epoch.")
    @click.option("--data", help="Folder for the samples.  [default: in the study's]")
    @click.option(
        "--cache",
        type=click.Choice(["auto", "drop", "advise", "keep"]),
        default="auto",
        show_default=True,
        help="How the page cache is emptied before a run.",
    )
    @click.option("--workload", show_default="resnet18-train", help="What a simulated board runs.")
    @click.option("--infer-workload", help="What it infers.")
    @click.option("--board", default="orin-agx", show_default=True, help="Board of a table.")
    @wraps(command)
    def run(**given: Any) -> None:
        names = BenchOptions.__dataclass_fields__
        command(options=BenchOptions(**{name: given.pop(name) for name in names}), **given)

    return run
