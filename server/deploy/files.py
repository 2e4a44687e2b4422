"""The files of a deployment, made at once: units and their configuration, for each of its hosts."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from powerctl.errors import InvalidInput
from powerctl.fields import check_name

UNITS = ("superlink", "supernode", "agent", "watch")
_PROGRAMS = "/opt/wattfed/bin"
_SOCKET = "/run/wattfed/agent.sock"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]*")
_STEPS = """\
# A federation of {n} nodes

What belongs to which host: `server/` and `nodes/NAME/` mirror the root of theirs. All need
wattfed in /opt/wattfed and a user wattfed (docs/launch.md says how), and a Jetson whose modes are
to be changed needs powerctl's daemon (docs/jetson.md).

1. Keys, once, in a folder that stays on the server:

       {keys}

   It prints which file goes to which host as /etc/wattfed/..., mode 600, of the user wattfed.
2. Copy each host's files, then start what they describe:

       sudo cp -r server/etc /               # on the server
       sudo systemctl daemon-reload
       sudo systemctl enable --now wattfed-superlink wattfed-watch

       sudo cp -r nodes/NAME/etc /           # on each node
       sudo systemctl daemon-reload
       sudo systemctl enable --now {services}

3. Put config.toml into ~/.flwr/ of whoever starts runs, with ca.crt in /etc/wattfed, and
   register the nodes:

{register}

4. From an app's folder (wattfed new my-app):

       flwr run . fleet --stream --run-config "per-round={n} min-nodes={n}"
"""


@dataclass(frozen=True)
class Deployment:
    """A federation of one server and some nodes.

    Attributes
    ----------
    hosts : tuple of str
        Names and addresses by which nodes reach the server, the first is written into their files.
    nodes : mapping of str to str
        The device of each node, by its name: ``jetson``, ``twin:orin-agx``.
    port : int
        Where the server listens.
    has_agents : bool
        Whether each node has an agent, which serves inference and owns the device.
    """

    hosts: tuple[str, ...]
    nodes: Mapping[str, str]
    port: int = 8000
    has_agents: bool = True

    def __post_init__(self) -> None:
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise InvalidInput(f"server {host!r:.60} is no host name and no address")
        if not self.hosts:
            raise InvalidInput("a deployment needs the server's host name: --server HOST")
        if not self.nodes:
            raise InvalidInput("a deployment needs nodes: --node NAME, or --node NAME=DEVICE")
        for name, device in self.nodes.items():
            check_name(name, "the name of a node")
            if not device or not device.isprintable() or set(device) & set("\"'\\"):
                raise InvalidInput(f"node {name}: {device!r:.60} is no device")

    def write(self, folder: Path) -> list[Path]:
        """Write all files into a new folder; their paths.

        Raises
        ------
        InvalidInput
            If the folder is there already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True)
            files = self._files()
            for name, text in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except FileExistsError:
            raise InvalidInput(f"{folder} is there already; give another folder") from None
        except OSError as error:
            raise InvalidInput(f"cannot write to {folder}: {error.strerror}") from None
        return [folder / name for name in files]

    def _files(self) -> dict[str, str]:
        """Every file's text by its path in the folder."""
        from wattfed.server.engines.flower_tools import ONE_PORT_SINCE, flower_version

        is_old = flower_version() < ONE_PORT_SINCE
        found = {"README.md": self._steps(is_old), "config.toml": self._flower_config(is_old)}
        listens = f"--host 0.0.0.0 --port {self.port}"
        if is_old:
            listens = (
                f"--fleet-api-address 0.0.0.0:{self.port} "
                f"--control-api-address 0.0.0.0:{self.port + 1}"
            )
        found["server/etc/wattfed/superlink.env"] = f"OPTIONS={listens}\n"
        found |= _unit_files("server", ("superlink", "watch"))
        for number, (name, device) in enumerate(self.nodes.items()):
            settings = self._node_config(number, name, device)
            etc = f"nodes/{name}/etc/wattfed"
            found[f"{etc}/supernode.env"] = (
                f"SUPERLINK={self.hosts[0]}:{self.port}\nNODE_CONFIG={settings}\n"
            )
            if self.has_agents:
                found[f"{etc}/agent.toml"] = f"device = {json.dumps(device)}\n"
            units = ("supernode", "agent") if self.has_agents else ("supernode",)
            found |= _unit_files(f"nodes/{name}", units)
        return found

    def _node_config(self, number: int, name: str, device: str) -> str:
        where = f'agent="{_SOCKET}"'
        if not self.has_agents:
            where = f'device="{device}" state-dir="/var/lib/wattfed-supernode/clients"'
        return f'name="{name}" partition-id={number} num-partitions={len(self.nodes)} {where}'

    def _flower_config(self, is_old: bool) -> str:
        address = f"{self.hosts[0]}:{self.port + is_old}"
        return (
            '[superlink]\ndefault = "fleet"\n\n[superlink.fleet]\n'
            f'address = "{address}"\nroot-certificates = "/etc/wattfed/ca.crt"\n'
        )

    def _steps(self, is_old: bool) -> str:
        nodes = " ".join(f"--node {name}" for name in self.nodes)
        hosts = shlex.quote(f"server={','.join(self.hosts)}")
        register = [
            f"       flwr supernode register keys/nodes/{name}.pub fleet"
            + ("" if is_old else f" --name {name}")
            for name in self.nodes
        ]
        return _STEPS.format(
            n=len(self.nodes),
            keys=f"wattfed keys keys --certificate {hosts} {nodes}",
            services="wattfed-agent wattfed-supernode" if self.has_agents else "wattfed-supernode",
            register="\n".join(register),
        )


def unit_text(name: str, programs: str) -> str:
    """A systemd unit, one of `UNITS`, that runs the programs of a folder."""
    template = Path(__file__).parent / "units" / f"{name}.service"
    return template.read_text(encoding="utf-8").replace("@BIN@", programs)


def _unit_files(host: str, names: tuple[str, ...]) -> dict[str, str]:
    folder = f"{host}/etc/systemd/system"
    return {f"{folder}/wattfed-{name}.service": unit_text(name, _PROGRAMS) for name in names}
