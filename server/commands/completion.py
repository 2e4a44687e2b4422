"""`wattfed completion`: what lets a shell complete the command lines of all three programs."""

from __future__ import annotations

import click

_PROGRAMS = ("wattfed", "wattfed-agent", "powerctl")
_EXAMPLES = """\b
Examples, each a line for the shell's own start file:
  eval "$(wattfed completion bash)"      ~/.bashrc
  eval "$(wattfed completion zsh)"       ~/.zshrc, after compinit
  wattfed completion fish | source       ~/.config/fish/config.fish
"""


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print what completes wattfed, wattfed-agent and powerctl in a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    for program in _PROGRAMS:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        click.echo(kind(click.Command(program), {}, program, variable).source())
