"""How commands of both packages print, write JSON and fail: one line for an error, exit code 2."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import click

from powerctl.errors import PowerctlError, TaskFailed
from powerctl.stopping import stopping_cleanly


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
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        sys.exit(0)


def print_json(content: Any) -> None:
    """Print for machines."""
    click.echo(json.dumps(content, indent=2))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns: text to the left, numbers to the right with three digits."""
    for line in table_lines(header, rows):
        click.echo(line)


def table_lines(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines that `print_table` prints."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    is_text = [bool(rows) and isinstance(rows[0][i], str) for i in range(len(header))]
    lines = []
    for line in (list(header), *cells):
        parts = [
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(line, widths, is_text, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def cell(value: object) -> str:
    """A value as tables show it; a number that is not known is a dash."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)
