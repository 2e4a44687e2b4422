"""``--task`` and ``--set``: a user's own task as what runs where a command measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from powerctl.commands.options import Command, accelerator_option

if TYPE_CHECKING:
    from powerctl.device import Device
    from powerctl.profiler import Step


@dataclass(frozen=True)
class TaskOptions:
    """A task and its settings, as a command line gives them."""

    text: str
    settings: tuple[str, ...] = ()

    def steps(self, device: Device, kind: str, sizes: Sequence[int]) -> Mapping[int, Step]:
        """What runs a minibatch of each batch size; ended with the command.

        Parameters
        ----------
        device : Device
            Where; a simulated one has the time of a workload, which is said on stderr.
        kind : {"train", "infer"}
            Of the workload that it is measured as.
        sizes : sequence of int
        """
        from powerctl.task.loading import load_task
        from powerctl.task.measuring import steps_of
        from powerctl.task.settings import parse_settings

        if device.is_virtual:
            click.echo(
                f"--task {self.text} runs, but time and power are those of the simulated device's "
                "workload and not of your task: measure it on a Jetson",
                err=True,
            )
        steps = steps_of(load_task(self.text, parse_settings(self.settings)), kind, sizes)
        for step in steps.values():
            click.get_current_context().call_on_close(step.close)
        return steps


def with_task(command: Command) -> Command:
    """Give a command ``--task`` and ``--set``; it receives them as `task`, or None."""

    @click.option("--task", "text", help="Your own: my_task.py, pkg.mod, or either with :Name.")
    @settings_option
    @accelerator_option
    @wraps(command)
    def run(text: str | None, settings: tuple[str, ...], **rest: Any) -> None:
        if settings and text is None:
            raise click.UsageError("--set is for a task of your own: give --task")
        command(task=None if text is None else TaskOptions(text, settings), **rest)

    return run


settings_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="For the task; repeat."
)
