"""What sets up a federation across hosts: `wattfed init`, `wattfed keys` and `wattfed units`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from wattfed.server.deploy.files import UNITS, Deployment, unit_text

_INIT_EXAMPLES = """\b
Examples:
  wattfed init fleet --server fl.example.org,192.168.1.10 --node jetson-0 --node jetson-1
  wattfed init twins --server localhost --node a=twin:orin-agx --node b=twin:orin-nano --no-agent
"""
_KEYS_EXAMPLES = """\b
Examples:
  wattfed keys keys --certificate server=fl.example.org,192.168.1.10 --node jetson-0 --node jetson-1
  wattfed keys keys --node jetson-2
  wattfed keys keys --certificate jetson-0=192.168.1.20
"""
_UNITS_EXAMPLES = """\b
Examples:
  wattfed units superlink | sudo tee /etc/systemd/system/wattfed-superlink.service
  wattfed units supernode
  wattfed units agent
  wattfed units watch
"""


@click.command("init", epilog=_INIT_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--server",
    required=True,
    metavar="HOST[,HOST]...",
    help="Names and addresses under which the nodes reach the server.",
)
@click.option(
    "--node",
    "texts",
    multiple=True,
    metavar="NAME[=DEVICE]",
    help="A node, and its device if that is not the Jetson itself; can be repeated.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65534),
    default=8000,
    show_default=True,
    help="Port of the server; with Flower 1.30 also the next one.",
)
@click.option(
    "--agent/--no-agent",
    "has_agents",
    default=True,
    show_default=True,
    help="Whether nodes have an agent, which serves inference and keeps running between rounds.",
)
def init(folder: Path, server: str, texts: tuple[str, ...], port: int, has_agents: bool) -> None:
    """Write the files of a deployment into a new FOLDER: units and configuration, by host.

    README.md in that folder lists the steps. `wattfed keys` makes the keys.
    """
    nodes = {}
    for text in texts:
        name, equals, device = text.partition("=")
        nodes[name] = device if equals else "jetson"
    for path in Deployment(tuple(server.split(",")), nodes, port, has_agents).write(folder):
        click.echo(path)


@click.command(epilog=_KEYS_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--certificate",
    "certificates",
    multiple=True,
    metavar="NAME=HOST[,HOST]...",
    help="A server's certificate, for the names and addresses under which it is reached.",
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="A SuperNode's key.")
def keys(folder: Path, certificates: tuple[str, ...], nodes: tuple[str, ...]) -> None:
    """Make the certificates and node keys of a federation, or add more to a folder of them.

    Keep FOLDER on the server, and secret. The table shows which files to copy to which host.
    """
    from powerctl import console
    from powerctl.errors import InvalidInput
    from wattfed.server.deploy.keys import Keys

    made = Keys(folder)
    rows = [(str(made.authority), "every host, and who starts runs", "/etc/wattfed/ca.crt")]
    for text in certificates:
        name, _, hosts = text.partition("=")
        if not all([name, *hosts.split(",")]):
            raise InvalidInput(f"cannot read {text!r}; write NAME=HOST, or NAME=HOST,ADDRESS")
        for path in made.certificate(name, hosts.split(",")):
            rows.append((str(path), name, f"/etc/wattfed/{path.name}"))
    for name in nodes:
        private, public = made.node(name)
        rows.append((str(private), name, "/etc/wattfed/node"))
        rows.append((str(public), f"flwr supernode register, --name {name}", "-"))
    console.print_table(("file", "for", "there"), rows)


@click.command(epilog=_UNITS_EXAMPLES)
@click.argument("unit", type=click.Choice(UNITS))
def units(unit: str) -> None:
    """Print a systemd unit that runs this installation of wattfed.

    Its first lines say where to put it, and which file in /etc/wattfed configures it.
    """
    click.echo(unit_text(unit, str(Path(sys.executable).parent)), nl=False)
