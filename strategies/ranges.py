"""What can stand in a field of a record that comes from another host, declared in its type.

`powerctl.fields` holds a value to it, as it does with the fields of files.
"""

from __future__ import annotations

from typing import Annotated

from powerctl.fields import Range
from powerctl.fulcrum.plans import FRONT_POINTS

MOST_CLIENTS = 10_000_000  # policies keep some hundred bytes for each number up to the highest

ClientNumber = Annotated[int, Range(0, MOST_CLIENTS - 1)]
ClientCount = Annotated[int, Range(1, MOST_CLIENTS)]
Seconds = Annotated[float, Range(0, 1e9)]
Joules = Annotated[float, Range(0, 1e12)]
Watts = Annotated[float, Range(0, 1e6)]
Clock = Annotated[float, Range(0, 1e15)]  # of many rounds
Pull = Annotated[float, Range(0, 1e9)]  # of FedProx
MostSeconds = Annotated[float, Range(0, 1e9, unbounded=True)]
MostJoules = Annotated[float, Range(0, 1e12, unbounded=True)]
MostWatts = Annotated[float, Range(0, 1e6, unbounded=True)]
LeftJoules = Annotated[float, Range(-1e12, 1e12, unbounded=True)]  # who is blind to it overdraws
Cost = Annotated[float, Range(1e-9, 1e9)]  # seconds or joules of a minibatch, which is not free
Costs = Annotated[tuple[Cost, ...], Range(0, FRONT_POINTS)]
Axis = Annotated[int, Range(0, 1e12)]  # of a mode
Axes = Annotated[tuple[Axis, ...], Range(0, 4 * FRONT_POINTS)]
Loss = Annotated[float, Range(-1e39, 1e39, unknown=True)]  # below 0 as the task has it
Percent = Annotated[float, Range(-1e15, 1e15, unbounded=True, unknown=True)]  # of errors
RootMeanSquare = Annotated[float, Range(0, 1e39)]
Text = Annotated[str, Range(0, 1000, printable=True)]
Texts = Annotated[tuple[Annotated[str, Range(0, 100, printable=True)], ...], Range(0, 1000)]
LabelCounts = Annotated[tuple[Annotated[float, Range(-1e9, 1e9)], ...], Range(0, 10_000)]
