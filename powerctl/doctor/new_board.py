"""A board's file, made from what the board says of itself."""

from __future__ import annotations

import re
from pathlib import Path

from powerctl.board_files import UNKNOWN_RELEASE, canonical_name, version
from powerctl.boards import Board, load_board
from powerctl.doctor.board_report import read_board_report
from powerctl.durable import home_folder, write_output
from powerctl.errors import InvalidInput
from powerctl.reading import quoted
from powerctl.toml_writing import toml_text
from powerctl.uncatalogued import board_data, most_like

_NAME = re.compile(r"\w[\w-]{0,79}", re.ASCII)
_HEAD = """\
# {title}, by powerctl board new. Axes, presets and rails: of its own report. Not verified: which
# rails make up its power (total_power_rails), and all that is lent by {lender}: {lent}.

"""


def write_board(
    report: str,
    name: str | None = None,
    like: str | None = None,
    cuda_cores: int | None = None,
    l4t: str | None = None,
    out: str | None = None,
) -> tuple[Path, Board]:
    """Write the file of a board, and load it.

    Parameters
    ----------
    report : str
        Path of a report of ``powerctl doctor --report``.
    name, l4t : str, optional
        What it is called, and its release; by default what the report says.
    like : str, optional
        The board whose constants the cost model starts with; by default the nearest.
    cuda_cores : int, optional
        Of its GPU; by default as `like`.
    out : str, optional
        The file; by default ``~/.powerctl/boards/NAME.toml``, where it is known by its name.

    Raises
    ------
    InvalidInput
        If the report says no release, or has no rails, or is none.
    """
    said = read_board_report(report)
    name, release = name or said["name"], l4t or said["l4t"]
    if release == UNKNOWN_RELEASE:
        raise InvalidInput(f"{report}: the report does not say the L4T release: give --l4t")
    version(release)
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{quoted(name)} is no name for a board: give --name, of up to 80 letters, digits, -, _"
        )
    if not said["rail"]:
        raise InvalidInput(f"{report}: the report has no power rails, which a board's file needs")
    lender = canonical_name(like) if like else most_like(said)
    data = board_data({**said, "name": name, "l4t": release}, lender)
    if cuda_cores:
        data |= {
            "cuda_cores": cuda_cores,
            "hardware": {**data["hardware"], "flop_per_gpu_cycle": 2 * cuda_cores},
        }
    path = Path(out) if out else home_folder() / "boards" / f"{name}.toml"
    if not out:
        path.parent.mkdir(parents=True, exist_ok=True)
    lent = "CPU architecture, clusters, operations of the GPU, [hardware]"
    head = _HEAD.format(title=data["title"], lender=lender, lent=lent)
    write_output(path, head + toml_text(data))
    return path, load_board(name if not out else str(path))
