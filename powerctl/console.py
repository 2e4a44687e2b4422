"""How commands of both packages print, write JSON and fail: one line for an error, exit code 2."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from powerctl.errors import InvalidInput, PowerctlError, TaskFailed
from powerctl.quantities import parse, rounded
from powerctl.stopping import stopping_cleanly

if TYPE_CHECKING:
    _FloatType = click.ParamType[float]
    _TupleType = click.ParamType[tuple[int, ...]]
else:  # of older releases of click no generic
    _FloatType = _TupleType = click.ParamType


class Quantity(_FloatType):
    """The type of an option that takes a quantity, such as ``50ms``; see `quantities.parse`.

    Parameters
    ----------
    kind : str
        As of `parse`.
    least, most : float
        The option hands over nothing below and above.
    """

    def __init__(self, kind: str, least: float = 0.0, most: float = math.inf) -> None:
        self.name = kind
        self._least, self._most = least, most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The quantity in s, W, J, 1/s or as a share; a default may be one already."""
        what = param.opts[0] if param else self.name
        found = parse(value, self.name, what) if isinstance(value, str) else float(value)
        if not self._least <= found <= self._most:
            raise InvalidInput(
                f"{what} {value}: from {self._least:g} to {self._most:g} {self.name}"
            )
        return found


class WholeNumbers(_TupleType):
    """The type of an option that takes whole numbers above 0, such as ``1,4,16``, each once."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers in the order in which they are written."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            what = param.opts[0] if param else self.name
            raise InvalidInput(f"cannot read {what} {value!r}; write whole numbers such as 1,4,16")
        return tuple(dict.fromkeys(int(part) for part in parts))


_LEAST_ROOM = 16  # characters in which a last column is wrapped beside the others, not below,
_BELOW = 4  # where it begins so far in


def run(command: click.Command) -> None:
    """Run a command line; an error that a person can mend is one line and exit code 2.

    So is a signal that ends it, with the exit code that shells give: 130, 143.
    """
    try:
        with stopping_cleanly():
            command.main()
    except PowerctlError as error:
        click.echo(f"{command.name}: {error}", err=True)
        if isinstance(error, TaskFailed) and error.traceback:
            click.echo(error.traceback, err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        click.echo(
            f"{command.name}: this needs torch, which {sys.executable} does not have: "
            "`powerctl doctor` says which belongs to this machine, and where to get it",
            err=True,
        )
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        sys.exit(0)


def print_json(content: Any) -> None:
    """Print a value as indented JSON, for scripts."""
    click.echo(json.dumps(content, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns: text to the left, numbers to the right with four digits.

    On a terminal that is too narrow, headers and the last column take several lines.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table_lines(header, rows, width):
        click.echo(line)


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[object]], width: int | None = None
) -> list[str]:
    """The lines that `print_table` prints on a terminal of a width; None bounds nothing."""
    cells = [[cell(value) for value in row] for row in rows]
    is_text = [bool(rows) and isinstance(rows[0][i], str) for i in range(len(header))]
    lines = _aligned([list(header), *cells], is_text)
    if width is None or not rows or max(map(len, lines)) <= width:
        return lines
    wrapped = [
        textwrap.wrap(text, max(len(row[i]) for row in cells) or 1, break_long_words=False)
        for i, text in enumerate(header[:-1])
    ]
    height = max(map(len, wrapped))
    heads = zip(*([""] * (height - len(lines)) + lines for lines in wrapped), strict=True)
    lines = _aligned([*heads, *(row[:-1] for row in cells)], is_text)
    last = [*[""] * (height - 1), header[-1], *(row[-1] for row in cells)]
    beside = max(map(len, lines)) + 2
    found = []
    for line, text in zip(lines, last, strict=True):
        room = width - beside
        below = len(text) > room and room < _LEAST_ROOM
        margin = _BELOW if below else beside
        parts = ["", *textwrap.wrap(text, width - margin)] if below else textwrap.wrap(text, room)
        first, *rest = parts or [""]
        found += [line.ljust(margin) + first, *(" " * margin + part for part in rest)]
    return [line.rstrip() for line in found]


def _aligned(lines: Sequence[Sequence[str]], is_text: Sequence[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(line, widths, is_text, strict=False)
        ).rstrip()
        for line in lines
    ]


def cell(value: object) -> str:
    """A value as tables show it; a number that is not known is a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else rounded(value, 4)
    return str(value)
