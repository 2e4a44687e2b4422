"""Reads a file that grows: each line once, when it is whole."""

from __future__ import annotations

from pathlib import Path

from powerctl.reading import NoFile, open_regular

Lines = list[tuple[int, str]]
"""Lines of a file with their numbers, from 1 on."""


class FollowedFile:
    """The lines of a text file, as they are appended.

    A last line without its end is left for later: whoever writes it has not finished, or was
    killed. Where the line read last is no longer in its place, the file is another one, or was cut
    (a run began anew in the folder, or goes on from an earlier round), and is to be read again.

    Parameters
    ----------
    path : Path
        May appear later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_lines = 0
        self._last = b""
        self._last_at = 0

    def new_lines(self) -> Lines | None:
        """The lines since the last call; None if the file is to be read again, from its start.

        Raises
        ------
        InvalidInput
            If it cannot be read.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(self._last_at)
                content = file.readall()
        except NoFile:
            content = b""
        if not content.startswith(self._last):
            return None
        *lines, _unfinished = content[len(self._last) :].split(b"\n")
        for line in lines:
            self._last_at += len(self._last)
            self._last = line + b"\n"
        first = self.read_lines + 1
        self.read_lines += len(lines)
        texts = (line.decode(errors="replace").removeprefix("\ufeff") for line in lines)
        return list(enumerate(texts, start=first))
