"""The Flower ServerApp: one federated run on Flower's runtimes."""

from __future__ import annotations

from logging import ERROR, INFO, WARNING, LogRecord
from pathlib import Path
from typing import cast

from flwr.app import Context
from flwr.common.logger import FLOWER_LOGGER, log, update_console_handler
from flwr.serverapp import Grid, ServerApp

from powerctl.errors import InvalidInput, PowerctlError
from powerctl.reading import read_toml
from wattfed.server.engines.flower import SteadyGrid, run_federation
from wattfed.server.run.judging import judge_result
from wattfed.server.run.participants import Participants, headline
from wattfed.server.run.results import placed
from wattfed.server.run.run_progress import RunProgress
from wattfed.strategies.app_folder import app_folder, import_from_app_first
from wattfed.strategies.run_config import RunConfig

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation of the run config and say where its results are."""
    update_console_handler(colored=False)  # who reads the stream may be a file
    FLOWER_LOGGER.addFilter(is_told_here)
    try:
        import_from_app_first()
        config = placed(RunConfig.from_flower(context.run_config))
        warn_of_place(Path(config.out_dir).resolve())
        with RunProgress(config, say=lambda line: log(INFO, line)) as progress:
            result = run_federation(
                cast(Grid, SteadyGrid(grid, progress.part)),
                config,
                on_row=progress.show,
                on_plan=lambda participants: _tell_plan(config, participants),
            )
    except PowerctlError as error:
        log(ERROR, "wattfed: %s", error)  # the line to read; the traceback below is Flower's
        raise
    for sentence in judge_result(result).sentences():
        log(INFO, sentence)
    log(INFO, "results: %s", result.folder.resolve())


def is_told_here(record: LogRecord) -> bool:
    """Whether a line is to be logged: but for Flower's own on rounds, of which ours tell more.

    Where updates are summed as they come, its strategies also count the sums as replies.
    """
    return record.levelno > INFO or "/flwr/serverapp/strategy/" not in record.pathname


def _tell_plan(config: RunConfig, participants: Participants) -> None:
    log(INFO, headline(config, participants.clients, participants.charged_words(config)))
    log(INFO, participants.everyone)
    for warning in participants.warnings:
        log(WARNING, warning)


def warn_of_place(out: Path) -> None:
    """Warn of results that go where keys are, or to another app: where a SuperLink was started."""
    where, app = "", app_folder()
    for key in [*out.glob("*.key"), *out.parent.glob("*.key")][:1]:
        where = f"beside the secret {key}"
    if app and _app_name(out.parent) not in ("", _app_name(app)):
        where = f"into the folder of another app, {_app_name(out.parent)}"
    if where:
        log(
            WARNING,
            "results go to %s, %s: give the whole path of another folder as out-dir, or start the "
            "SuperLink in a folder of its own, as its unit does",
            out,
            where,
        )


def _app_name(folder: Path) -> str:
    """The name of the project in a folder; empty where no pyproject.toml tells it."""
    try:
        match read_toml(folder / "pyproject.toml"):
            case {"project": {"name": str(name)}}:
                return name
    except InvalidInput:
        pass  # none, or none that can be read
    return ""
