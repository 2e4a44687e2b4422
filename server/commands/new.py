"""`wattfed new`: a Flower App to begin with, that runs at once."""

from __future__ import annotations

import re
from pathlib import Path

import click

from powerctl.errors import InvalidInput

TEMPLATES = ("images", "text", "detection")
"""Apps of ``examples/``; in an installation they are beside ``wattfed.server``."""
_NEXT = {
    "wattfed simulate": "simulates its fleet here",
    "flwr run . --stream": "the same on Flower's runtime (pip install 'flwr[simulation]')",
    "pytest": "tests it (pip install pytest)",
}
_FILES = ("README.md", "fleet.toml", "pyproject.toml", "task.py", "test_task.py")

_EXAMPLES = """\b
Examples:
  wattfed new my-app
  wattfed new my-app --template detection
"""


@click.command("new", epilog=_EXAMPLES)
@click.argument("name")
@click.option(
    "--template",
    type=click.Choice(TEMPLATES),
    default="images",
    show_default=True,
    help="What the task learns, on small data that it makes itself.",
)
def new_command(name: str, template: str) -> None:
    """Write a Flower App into a new folder NAME: a task, a fleet and a test, to run and change."""
    write_app(name, template)
    click.echo(f"{name}/ holds a Flower app. Run it in there:")
    for command, what in _NEXT.items():
        click.echo(f"  {command:20} {what}")


def write_app(name: str, template: str) -> None:
    """Write the files of a new Flower App.

    Parameters
    ----------
    name : str
        Of the app, and of its folder in the current one.
    template : str
        One of `TEMPLATES`.

    Raises
    ------
    InvalidInput
        If it is no name of an app, or the folder is there, or cannot be made.
    """
    if not re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9-]{0,98}[A-Za-z0-9])?", name):
        like = re.sub(r"[^A-Za-z0-9]+", "-", name[:100]).strip("-0123456789") or "my-app"
        raise InvalidInput(
            f"{name!r:.60} is no name of an app: up to 100 letters, digits and - between them, a "
            f"letter first, such as {like}"
        )
    try:
        Path(name).mkdir()
    except FileExistsError:
        raise InvalidInput(f"{name} is there already; choose another name") from None
    except OSError as error:
        raise InvalidInput(f"cannot make the folder {name}: {error.strerror}") from None
    example = Path(__file__).resolve().parents[2] / "examples" / template
    for file in _FILES:
        text = (example / file).read_text(encoding="utf-8")
        named = re.sub(rf'(?m)^(# |name = "){template}\b', rf"\g<1>{name}", text)
        (Path(name) / file).write_text(named, encoding="utf-8")
