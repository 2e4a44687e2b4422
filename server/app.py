"""The Flower ServerApp: one federated run on Flower's runtimes."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from powerctl.errors import PowerctlError
from wattfed.server.console import row_line
from wattfed.server.federation import run_federation
from wattfed.server.judging import judge_result
from wattfed.server.plan_check import headline
from wattfed.server.roster import Roster
from wattfed.server.steady_grid import SteadyGrid
from wattfed.strategies.run_config import RunConfig

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the run config and say where its results are."""
    try:
        config = RunConfig.from_flower(context.run_config)
        result = run_federation(
            SteadyGrid(grid),
            config,
            on_row=lambda row: log(INFO, row_line(row)),
            on_plan=lambda roster: _tell_plan(config, roster),
        )
    except PowerctlError as error:
        log(ERROR, "wattfed: %s", error)  # the line to read; the traceback below is Flower's
        raise
    for sentence in judge_result(result).sentences():
        log(INFO, sentence)
    log(INFO, "results: %s", result.folder.resolve())


def _tell_plan(config: RunConfig, roster: Roster) -> None:
    log(INFO, headline(config, roster.clients))
    for warning in roster.warnings:
        log(WARNING, warning)
