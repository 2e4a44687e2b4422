"""The Flower ServerApp: one federated run on Flower's runtimes."""

from __future__ import annotations

from logging import ERROR, INFO

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from powerctl.errors import PowerctlError
from wattfed.server.console import row_line
from wattfed.server.federation import run_federation
from wattfed.server.steady_grid import SteadyGrid
from wattfed.strategies.run_config import RunConfig

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the run config and say where its results are."""
    try:
        config = RunConfig.from_flower(context.run_config)
        result = run_federation(SteadyGrid(grid), config, lambda row: log(INFO, row_line(row)))
    except PowerctlError as error:
        log(ERROR, "wattfed: %s", error)  # the line to read; the traceback below is Flower's
        raise
    log(INFO, "results: %s", result.folder.resolve())
