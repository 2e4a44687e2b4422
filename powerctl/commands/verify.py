"""`powerctl choose --verify`: measures the choice, and takes the next if it breaks a limit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from powerctl import console
from powerctl.commands.costs import Costs
from powerctl.commands.steps import TaskOptions
from powerctl.devices.opening import open_device
from powerctl.errors import Infeasible, InvalidInput
from powerctl.fulcrum.question import Question
from powerctl.profiler import Procedure, ProfiledMode, measure_mode
from powerctl.progress import Progress
from powerctl.quantities import time_unit
from powerctl.stopping import stopping_cleanly
from powerctl.workload import Workload


@dataclass(frozen=True)
class Attempt:
    """A mode that was chosen and then measured, and the limits that it broke, in words."""

    predicted: dict[str, Any]
    measured: ProfiledMode
    broken: tuple[str, ...]

    @property
    def entry(self) -> dict[str, Any]:
        """The attempt for JSON."""
        return {
            "predicted": self.predicted,
            "time_s": self.measured.time_s,
            "power_w": self.measured.power_w,
            "broken": self.broken,
        }


def verify(
    costs: Costs,
    question: Question,
    workload: Workload,
    spec: str,
    task: TaskOptions | None,
    at_most: int,
) -> tuple[Costs, list[Attempt]]:
    """Measure choice after choice on a device until one keeps the limits; restores the device.

    Each measurement makes the prediction better, from which the next is chosen.

    Returns
    -------
    Costs, list of Attempt
        The costs with what was measured, and the attempts; the last is the one that kept the
        limits, if any did.
    """
    device = open_device(spec, board=costs.board.name)
    if device.board.name != costs.board.name:
        raise InvalidInput(f"--device {spec} is no {costs.board.name}, which the costs are of")
    size = workload.batch_size
    run = None if task is None else task.steps(device, workload.kind, [size])[size]
    attempts: list[Attempt] = []

    def measured() -> str:
        return f"the device is restored; {len(attempts)} modes were measured"

    with stopping_cleanly(measured) as check, Progress("attempts", at_most) as shown:
        try:
            while len(attempts) < at_most:
                row = question.answer(costs.values)
                predicted, mode = costs.entry(row), costs.modes.mode(row)
                shown.say(f"measuring {mode}, attempt {len(attempts) + 1} of {at_most}")
                shown.update(len(attempts))
                seen = measure_mode(device, workload, mode, Procedure(), run)
                check()
                costs = costs.with_seen(seen.measurement)
                limits = question.limits(costs.values)
                broken = tuple(limit.spoken(row) for limit in limits if not limit.kept[row])
                attempts.append(Attempt(predicted, seen, broken))
                if not broken:
                    break
        except Infeasible:
            if not attempts:
                raise
        finally:
            device.restore()
    origin = f"measured on {spec}; beforehand {costs.origin}"
    return replace(costs, origin=origin), attempts


def print_attempts(attempts: list[Attempt]) -> None:
    """Print what was measured beside what was predicted."""
    unit, per_s = time_unit(attempt.measured.time_s for attempt in attempts)
    header = ("measured mode", f"time ({unit})", "predicted", "power (W)", "predicted", "limits")
    rows = [
        (
            str(attempt.measured.mode),
            per_s * attempt.measured.time_s,
            per_s * attempt.predicted["time_s"],
            attempt.measured.power_w,
            attempt.predicted["power_w"],
            "broken" if attempt.broken else "kept",
        )
        for attempt in attempts
    ]
    console.print_table(header, rows)
