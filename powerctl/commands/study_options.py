"""What `powerctl characterize` studies: what runs where, and which factors are varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from powerctl.commands.options import (
    accelerator_option,
    option_group,
    seed_option,
    settings_option,
)
from powerctl.console import WholeNumbers
from powerctl.errors import InvalidInput

if TYPE_CHECKING:
    from powerctl.characterization.plan import Factor, Level, Plan
    from powerctl.characterization.running import Bench

SAMPLES = "samples"  # folder of a study's data, unless it is somewhere else


@dataclass(frozen=True)
class BenchOptions:
    """What a command line says of device, model and data; None where it does not say."""

    device: str
    task: str | None
    settings: tuple[str, ...]
    model: str | None
    dataset: str | None
    input: tuple[int, ...] | None
    samples: int | None
    data: str | None
    cache: str
    workload: str | None
    infer_workload: str | None
    board: str | None

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
        from powerctl.characterization.tasks import load_study_task
        from powerctl.task.loading import parse_settings

        for name in ("workload", "infer_workload"):
            if getattr(self, name) is not None:
                flag = name.replace("_", "-")
                raise click.UsageError(f"--{flag} is of a simulated board: --device twin:BOARD")
        task = load_study_task(
            self.task,
            data,
            settings=parse_settings(self.settings),
            model=self.model,
            dataset=self.dataset,
            shape=self.input,
        )
        return RealBench(task, self.device, samples=self.samples, empty=self.cache, seed=seed)


with_bench = option_group(
    "options",
    BenchOptions,
    click.option(
        "--device",
        default="here",
        show_default=True,
        help="Or jetson, twin:BOARD, table:FILE.csv, jetson:DIR.",
    ),
    click.option("--task", show_default="images", help="digits, images, my_task.py or pkg.mod."),
    settings_option,
    accelerator_option,
    click.option("--model", help="Another model: pkg.module:make, or a name of torchvision."),
    click.option("--dataset", help="Other data: pkg.module:make."),
    click.option("--input", type=WholeNumbers(), help="Shape of a generated picture: 3,224,224."),
    click.option("--samples", type=click.IntRange(1), help="So many make an epoch."),
    click.option("--data", help="Folder for the samples.  [default: in the study's]"),
    click.option(
        "--cache",
        type=click.Choice(["auto", "drop", "advise", "keep"]),
        default="auto",
        show_default=True,
        help="How the page cache is emptied before a run.",
    ),
    click.option("--workload", show_default="resnet18-train", help="What a simulated board runs."),
    click.option("--infer-workload", help="What it infers."),
    click.option("--board", show_default="orin-agx", help="Board of a table."),
)
"""Gives a command the options of what runs on what; it receives `BenchOptions`."""


@dataclass(frozen=True)
class Varying:
    """What a command line says of factors, levels and repetitions."""

    vary: tuple[str, ...]
    fix: tuple[str, ...]
    grid: bool
    repetitions: int
    epochs: int
    seed: int

    def plan(self, bench: Bench) -> Plan:
        """The plan for a bench, whose usual levels are taken where nothing is said."""
        from powerctl.characterization.plan import Plan, factor

        baseline = bench.baseline
        for text in self.fix:
            name, levels = _named(text)
            if len(levels) != 1 or name == "infer-batch":
                raise InvalidInput(f"--fix {text}: write one level of a factor, such as workers=2")
            baseline = factor(name).set(baseline, _levels(bench, factor(name), levels)[0])
        asked = dict(map(_named, self.vary)) or {name: [] for name in bench.levels}
        levels_of: dict[str, Sequence[Level]] = {}
        for name, texts in asked.items():
            if not texts and name not in bench.levels:
                factor(name)  # there may be no such factor at all
                raise InvalidInput(f"--vary {name}: say which levels, such as {name}=1,2")
            levels_of[name] = _levels(bench, factor(name), texts) if texts else bench.levels[name]
        return Plan(baseline, levels_of, self.grid, self.repetitions, self.epochs, self.seed)


with_varying = option_group(
    "varying",
    Varying,
    click.option(
        "--vary",
        multiple=True,
        metavar="FACTOR[=LEVELS]",
        help="Only this: workers=0,1,4, mode=presets or mode=grid:3, ...; repeat.",
    ),
    click.option(
        "--fix", multiple=True, metavar="FACTOR=LEVEL", help="Where a factor stays; repeat."
    ),
    click.option("--grid", is_flag=True, help="Each level with each of the other factors."),
    click.option("--repetitions", type=click.IntRange(1), default=3, show_default=True),
    click.option(
        "--epochs", type=click.IntRange(2), default=3, show_default=True, help="Of a run."
    ),
    seed_option("Of order and weights."),
)
"""Gives a command the options that say what varies; it receives them as `varying`."""


def _named(text: str) -> tuple[str, list[str]]:
    name, _, levels = text.partition("=")
    return name.strip(), [level.strip() for level in levels.split(",") if level.strip()]


def _levels(bench: Bench, factor: Factor, texts: Sequence[str]) -> list[Level]:
    """The levels of a factor that texts name, as configurations hold them, each once."""
    found: list[Level] = []
    for text in texts:
        if factor.name == "mode":
            found += bench.mode_levels(text)
        elif factor.name == "storage":
            found.append(text)
        elif factor.name == "observer" and text in ("on", "off"):
            found.append(text == "on")
        elif factor.name != "observer" and text.isdecimal():
            found.append(int(text))
        else:
            raise InvalidInput(f"cannot read {factor.name} {text!r}")
    return list(dict.fromkeys(found))
