"""Runs a Flower app on the Simulation Runtime (Ray), with a SuperLink that lives for that run.

``flwr run .`` alone leaves three traps: it hands the app to whichever local SuperLink answers on
a fixed port, which may be an older one of another checkout, whose folder Ray's workers then import
the ClientApp from; that SuperLink stays after the run; and a failed run exits with 0. Here the
SuperLink is our own, on a free port, started in the app's folder, and ended with the run; and a
run that did not complete is an error.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from powerctl.errors import InvalidInput
from wattfed.server.engines.flower_tools import (
    COMPLETED,
    ONE_PORT_SINCE,
    FlowerRunFailed,
    FlowerTools,
    flower_ports,
    flower_version,
)


def run_on_flower(
    app_dir: Path,
    num_supernodes: int,
    run_config: Mapping[str, Any],
    *,
    relay: Callable[[str], None] | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run an app once on Flower's Simulation Runtime, with one CPU per client.

    Relative paths in the run config are relative to `app_dir`, where the ServerApp runs. A Ray
    cluster is used where RAY_ADDRESS names one; else Ray is started, and ended, with the run.

    Parameters
    ----------
    app_dir : Path
        The folder with the app's pyproject.toml.
    num_supernodes : int
        Clients to simulate; Flower itself would take 2.
    run_config : mapping
        Values that override those of pyproject.toml: str, bool, int or float.
    relay : callable, optional
        Called with each line of the log; by default they go to stderr.
    timeout_s : float, optional
        Wall-clock seconds that the run may take.

    Returns
    -------
    str
        ``finished:completed``.

    Raises
    ------
    InvalidInput
        If there is no app, or no client.
    FlowerRunFailed
        If the run did not complete, or Flower or Ray is missing or too old. The message says where
        the logs are; they are removed after a run that completed.
    """
    if not (app_dir / "pyproject.toml").is_file():
        raise InvalidInput(
            f"no Flower app in {app_dir}: it has no pyproject.toml; run from a checkout of wattfed"
        )
    if num_supernodes < 1:
        raise InvalidInput(f"num_supernodes is {num_supernodes}; a run needs at least 1")
    _check_installation()
    folder = Path(tempfile.mkdtemp(prefix="wattfed-", dir=_short_temporary_folder()))
    try:
        return _run_in(folder, app_dir, num_supernodes, run_config, relay, timeout_s)
    except FlowerRunFailed as error:
        raise FlowerRunFailed(f"{error}\nlogs are in {folder}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run_in(
    folder: Path,
    app_dir: Path,
    num_supernodes: int,
    run_config: Mapping[str, Any],
    relay: Callable[[str], None] | None,
    timeout_s: float | None,
) -> str:
    ports = flower_ports("127.0.0.1")
    ray = {} if "RAY_ADDRESS" in os.environ else {"RAY_TMPDIR": str(folder / "ray")}
    with FlowerTools(folder) as tools:
        superlink = tools.start(
            "superlink",
            *("flower-superlink", "--insecure", "--simulation", *ports.superlink_options),
            cwd=app_dir,
            env=ray,
        )
        tools.await_superlink(superlink, ports)
        resources = f"num-supernodes={num_supernodes} client-resources-num-cpus=1"
        run = tools.submit(
            app_dir,
            run_config,
            *("--federation-config", resources),
            relay=relay or (lambda line: click.echo(line, err=True)),
        )
        try:
            status = run.wait(superlink, timeout_s)
        finally:
            (folder / "run.log").write_text(run.log)
    if status != COMPLETED:
        raise FlowerRunFailed(f"the run on Flower is {status}{_reason(run.log)}")
    shutil.rmtree(folder, ignore_errors=True)
    return status


def _check_installation() -> None:
    if flower_version() < ONE_PORT_SINCE:
        raise FlowerRunFailed(
            f"flwr {importlib.metadata.version('flwr')} is too old for this command, which needs "
            f"{'.'.join(map(str, ONE_PORT_SINCE))}; use wattfed simulate, or Python 3.11 or newer"
        )
    if importlib.util.find_spec("ray") is None:
        raise FlowerRunFailed(
            "Ray, which Flower simulates with, is not installed: pip install 'wattfed[sim]', "
            "or use wattfed simulate, which needs no Ray"
        )


def _short_temporary_folder() -> str | None:
    """Where paths stay short: Ray's sockets allow 107 characters."""
    return "/tmp" if os.access("/tmp", os.W_OK) else None


def _reason(log: str) -> str:
    """The last line of the log in which Python, or the app, names an error."""
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in log.splitlines()]
    error = re.compile(r"(?:ERROR *: *)?(wattfed: .+|[\w.]*(?:Error|Exception): .+)")
    named = [found[1] for line in lines if (found := error.match(line))]
    return f": {named[-1].removeprefix('wattfed: ')}" if named else ""
