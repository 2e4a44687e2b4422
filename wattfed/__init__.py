"""Federated learning over power-aware NVIDIA Jetsons.

The names that are listed here are public, and docs/python.md shows them; all else is private by
convention. Each is imported when it is first used: whoever imports the package pays for nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from powerctl.exports import exports

if not os.path.isdir(os.path.join(__path__[0], "client")):
    # no links to the folders at the root: they are beside, as a FAB and some checkouts have them
    _root = os.path.dirname(__path__[0])
    if not os.path.isfile(os.path.join(_root, "pyproject.toml")):  # somebody else's `client`
        raise ImportError(
            f"{__path__[0]} lacks the folders client, server and strategies: it was built from a "
            "checkout without symbolic links; set core.symlinks in git, check out and build again"
        )
    __path__.append(_root)

if TYPE_CHECKING:
    from wattfed.client.fleet import Fleet as Fleet
    from wattfed.client.fleet import load_fleet as load_fleet
    from wattfed.client.gate import Gate as Gate
    from wattfed.server.comparison.running import compare as compare
    from wattfed.server.engines.simulation import simulate as simulate
    from wattfed.server.run.results import read_run as read_run
    from wattfed.strategies.policy import SelectionPolicy as SelectionPolicy
    from wattfed.strategies.protocol import RoundAssignment as RoundAssignment
    from wattfed.strategies.protocol import RoundOffer as RoundOffer
    from wattfed.strategies.protocol import RoundReport as RoundReport
    from wattfed.strategies.run_config import RunConfig as RunConfig
else:  # the same, when it is used
    __all__, __getattr__, __dir__ = exports(
        __name__,
        {
            "wattfed.client.fleet": "Fleet load_fleet",
            "wattfed.client.gate": "Gate",
            "wattfed.server.comparison.running": "compare",
            "wattfed.server.engines.simulation": "simulate",
            "wattfed.server.run.results": "read_run",
            "wattfed.strategies.policy": "SelectionPolicy",
            "wattfed.strategies.protocol": "RoundAssignment RoundOffer RoundReport",
            "wattfed.strategies.run_config": "RunConfig",
        },
    )
