"""A user's own task on a command line: what counts it, and what runs it to be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import click

from powerctl.progress import Progress

if TYPE_CHECKING:
    from powerctl.device import Device
    from powerctl.pagoda.counted import CountedTask
    from powerctl.profiler import Step
    from powerctl.task.loading import Task
    from powerctl.workload import Workload

_RUN_ON_A_TWIN = 40  # minibatches of a counted task: as many as a measured mode has at least


@dataclass(frozen=True)
class TaskOptions:
    """A task and its settings, as a command line gives them."""

    text: str
    settings: tuple[str, ...] = ()

    @cached_property
    def task(self) -> Task:
        """The task that is named, loaded once."""
        from powerctl.task.loading import load_task, parse_settings

        return load_task(self.text, parse_settings(self.settings))

    @lru_cache(maxsize=8)  # noqa: B019  there is one object a command
    def counted(self, kind: str) -> CountedTask:
        """What counts a minibatch of the task."""
        from powerctl.pagoda.counted import CountedTask

        return CountedTask(self.task, kind)

    def workload(self, kind: str, batch_size: int | None) -> Workload:
        """What a minibatch of it needs, counted at first sight; what is unsure is said on stderr.

        Parameters
        ----------
        kind : {"train", "infer"}
            What it does.
        batch_size : int or None
            Samples of a minibatch; of a task whose loader has a size of its own, that counts.
        """
        with Progress("counting"):
            job = self.counted(kind).known(batch_size)
        if job.counted_share == 0:
            click.echo(f"{self.text} {job.source}", err=True)
        elif job.counted_share is not None and job.counted_share < 1:
            click.echo(
                f"{self.text} was counted but for the FLOP of operators with "
                f"{1 - job.counted_share:.1%} of the bytes, which makes it less sure; they are "
                f"named by: powerctl explain --task {self.text}",
                err=True,
            )
        return job

    def steps(self, device: Device, jobs: Sequence[Workload]) -> Mapping[int, Step]:
        """What runs a minibatch of each batch size; ended with the command.

        Parameters
        ----------
        device : Device
            Where; a simulated one has the time of a workload, which is said on stderr.
        jobs : sequence of Workload
            What it is measured as, of one kind, with the batch sizes.
        """
        from powerctl.task.measuring import steps_of

        job = jobs[0]
        steps = steps_of(self.task, job.kind, [job.batch_size for job in jobs])
        for step in steps.values():
            click.get_current_context().call_on_close(step.close)
        if not device.is_virtual:
            return steps
        if job.counted_share is None:
            click.echo(
                f"--task {self.text} runs, but time and power are those of {job.name} and not of "
                "your task: measure it on a Jetson, or leave --workload out",
                err=True,
            )
            return steps
        click.echo(
            f"--task {self.text} runs {_RUN_ON_A_TWIN} minibatches, but time and power are those "
            f"of {job.name}, which was not measured: measure it on a Jetson",
            err=True,
        )
        return {size: _at_most(_RUN_ON_A_TWIN, step) for size, step in steps.items()}


def _at_most(n: int, step: Step) -> Step:
    """A step that does nothing after some calls: on a twin no more depends on it."""
    left = iter(range(n))

    def run() -> None:
        if next(left, None) is not None:
            step()

    return run
