"""The folder of the Flower App that this process runs, whose modules and files go before others.

Ray's workers look into the folder in which a SuperLink was started before the app that was sent.
The SuperLink that `flwr run` starts stays, and runs apps of other folders too: without a word
these would train the first one's task, on its fleet.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flwr.common.constant import APP_DIR
from flwr.supercore.utils import get_flwr_home


def app_folder() -> Path | None:
    """Where Flower has unpacked the app that it runs here; None where it is not Flower that runs.

    A process of Flower has that folder on its path.
    """
    apps = get_flwr_home().absolute() / APP_DIR
    return next((Path(entry) for entry in sys.path if Path(entry).parent == apps), None)


def import_from_app_first() -> None:
    """Let modules of the app go before those of the current folder, and these before others."""
    folder = app_folder()
    if folder and sys.path[:2] != (first := [str(folder), ""]):
        sys.path[:0] = first


def file_of_app(path: str) -> str:
    """The whole path of a file that came with the app; of any other, the path as it is."""
    folder = app_folder()
    return str(folder / path) if folder and (folder / path).is_file() else path
