"""Which modes `powerctl profile` measures: all, some by name, or a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from powerctl.commands.options import option_group, per_axis_option, seed_option
from powerctl.console import Quantity
from powerctl.errors import InvalidInput

if TYPE_CHECKING:
    from powerctl.device import Device
    from powerctl.modes import PowerMode
    from powerctl.profiler import Sampler
    from powerctl.workload import Workload


@dataclass(frozen=True)
class Sampling:
    """What a command line says of the modes to measure."""

    count: int | None
    method: str | None
    until: float | None
    seed: int
    per_axis: int | None
    every: bool
    listed: tuple[str, ...]

    def sampler(self, device: Device, workload: Workload, sizes: Sequence[int]) -> Sampler:
        """The sampler of those modes, for a workload in some batch sizes."""
        import numpy as np

        from powerctl.profiler import FixedModes

        grid = self.count is not None or self.per_axis is not None
        if grid + self.every + bool(self.listed) != 1:
            raise click.UsageError(
                "give one of --modes (with or without --per-axis), --all, --mode"
            )
        if self.count is None and (self.method == "designed" or self.until is not None):
            raise click.UsageError("designed sampling and --until need --modes: how many at most")
        if self.until is not None and self.method == "random":
            raise click.UsageError("--until needs --sampling designed")
        if self.listed:
            return FixedModes([device.space.parse(text) for text in self.listed])
        modes = device.modes if self.per_axis is None else [*device.space.thinned(self.per_axis)]
        if self.count is None:
            return FixedModes(modes)
        if self.count > len(modes):
            raise InvalidInput(
                f"--modes {self.count}: there are only {len(modes):,} to choose from"
            )
        if self.method != "random":
            return self._designed(device, workload, sizes, modes, self.count)
        # The head of one permutation, so that a log of 30 modes can be carried on to 50.
        drawn = np.random.default_rng(self.seed).permutation(len(modes))[: self.count]
        return FixedModes([modes[int(i)] for i in drawn])

    def _designed(
        self,
        device: Device,
        workload: Workload,
        sizes: Sequence[int],
        modes: Sequence[PowerMode],
        count: int,
    ) -> Sampler:
        from powerctl.modes import ModeArrays
        from powerctl.powertrain.design import DesignedModes
        from powerctl.powertrain.gaussian import GaussianPredictor

        until = self.until or 0.0
        board, kind = device.board, workload.kind
        return DesignedModes(
            GaussianPredictor(board.name, l4t=board.l4t, kind=kind, batch_size=sizes[0]),
            ModeArrays.of(modes),
            count,
            time_error=until,
            power_error=until,
            batch_sizes=sizes if len(sizes) > 1 else (),
            random_state=self.seed,
        )


with_sampling = option_group(
    "sampling",
    Sampling,
    click.option("--modes", "count", type=click.IntRange(1), help="So many modes, sampled."),
    click.option(
        "--sampling",
        "method",
        type=click.Choice(["random", "designed"]),
        show_default="designed",
        help="How --modes are chosen; designed: those that say most of all the others.",
    ),
    click.option(
        "--until",
        type=Quantity("share"),
        help="Designed: fewer, if the error expected of all is so small: 3%.",
    ),
    seed_option("Of the sampling."),
    per_axis_option,
    click.option("--all", "every", is_flag=True, help="Every mode of the device."),
    click.option(
        "--mode", "listed", multiple=True, help="This mode, e.g. 12c/2201/1300/3199; repeat."
    ),
)
"""Gives a command the options that say which modes; it receives them as `sampling`."""
