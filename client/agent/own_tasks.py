"""The tasks of the user's own that an agent may load: a list in its state directory, by hash.

A run only names a task. What is loaded is the agent's own file, and only while it is as it was when
it was added, and the server's has the same hash.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from powerctl.durable import write_output
from powerctl.errors import InvalidInput, UnknownName
from powerctl.fields import checked
from powerctl.reading import NoFile, read_json
from powerctl.task.loading import load_task
from powerctl.task.source_files import hash_of

_FILE = "tasks.json"
_SHOWN = 12  # characters of a hash that are enough to tell two apart
_ADD = "wattfed-agent task add"
_loaded: dict[str, str] = {}  # of this process: what a module was when it was imported


@dataclass(frozen=True)
class OwnTask:
    """A task that was added to an agent.

    Attributes
    ----------
    name : str
        Of the task.
    source : str
        What is loaded: its file, absolute, or its module; either may have ``:Name`` behind it.
    folder : str
        Where its files are, and where it imports from.
    files : tuple of str
        What it is made of, by the names within the folder.
    code_hash : str
        Of these files when it was added.
    """

    name: str
    source: str
    folder: str
    files: tuple[str, ...]
    code_hash: str

    @classmethod
    def of(cls, text: str) -> OwnTask:
        """The task that a text names now; raises `TaskFailed` or `InvalidInput` if it is none."""
        where, name = _parts(text)
        if where.endswith(".py"):
            where = str(Path(where).resolve())
        task = load_task(f"{where}:{name}" if name else where)
        if not task.sources:
            raise InvalidInput(f"{text}: a task whose code is in no file has no hash to know it by")
        file, path = next(iter(task.sources.items()))
        folder = path.parents[len(Path(file).parts) - 1]
        source = f"{where}:{name}" if name else where
        return cls(task.name, source, str(folder), tuple(task.sources), task.code_hash)

    @property
    def shown_hash(self) -> str:
        """The first characters of the hash."""
        return self.code_hash[:_SHOWN]

    def is_unchanged(self) -> bool:
        """Whether its files are there, and as they were when it was added."""
        try:
            return hash_of(self._paths()) == self.code_hash
        except OSError:
            return False

    def check_loaded(self) -> None:
        """Raise `InvalidInput` if this process has imported something else in its place.

        A module is imported once in a process: by the path of its file, or by its name, which the
        files that two tasks import may share.
        """
        by_path = _parts(self.source)[0]
        for file, path in self._paths().items():
            module = by_path if str(path) == by_path else file
            now = hash_of({str(path): path})
            if _loaded.setdefault(module, now) != now:
                raise InvalidInput(
                    f"this agent has loaded another {file} than {path} is now: restart the agent"
                )

    def _paths(self) -> dict[str, Path]:
        return {file: Path(self.folder, file) for file in self.files}


class OwnTasks:
    """The list of an agent's tasks, read anew each time: an agent that runs sees what is added.

    Parameters
    ----------
    folder : Path
        The agent's state directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / _FILE

    def listed(self) -> list[OwnTask]:
        """All of them; raises `InvalidInput` if the file is damaged."""
        try:
            listed = checked("no list of tasks", read_json(self._path), tuple[OwnTask, ...])
            return list(listed)
        except NoFile:
            return []
        except InvalidInput as error:
            raise InvalidInput(f"{self._path}: {error}; remove it") from None

    def add(self, text: str) -> OwnTask:
        """Add what a text names, in place of what it named before."""
        added = OwnTask.of(text)
        others = [own for own in self.listed() if own.source != added.source]
        self._write([*others, added])
        return added

    def remove(self, which: str) -> list[OwnTask]:
        """Take out those of a name or a hash; raises `UnknownName` if there is none."""
        listed = self.listed()
        gone = [own for own in listed if which in (own.name, own.code_hash, own.shown_hash)]
        if not gone:
            raise UnknownName("task of this agent", which, [own.name for own in listed])
        self._write([own for own in listed if own not in gone])
        return gone

    def source(self, text: str, code_hash: str) -> str:
        """What is loaded here for the task that a run names.

        Parameters
        ----------
        text : str
            Of the run. It chooses only among what is listed: no file or object is found by it.
        code_hash : str
            Of the server's code.

        Raises
        ------
        InvalidInput
            If there is none of that hash, or it has changed since; saying what to do.
        """
        listed, named = self.listed(), Path(text).name
        found = [
            own
            for own in listed
            if own.code_hash == code_hash and _parts(own.source)[1] == _parts(text)[1]
        ]
        if not found:
            known = ", ".join(f"{own.name} of hash {own.shown_hash}" for own in listed) or "none"
            raise InvalidInput(
                f"this agent knows no task {named} of hash {code_hash[:_SHOWN] or 'none'}, but "
                f"{known}: bring the server's file to this board, and there {_ADD} {named}"
            )
        own = next((own for own in found if own.is_unchanged()), None)
        if own is None:
            raise InvalidInput(
                f"task {named} has changed in {found[0].folder} since it was added to this agent: "
                f"{_ADD} {found[0].source}"
            )
        own.check_loaded()
        if own.folder not in sys.path:
            sys.path.append(own.folder)  # last: it hides nothing that is installed
        return own.source

    def _write(self, tasks: Sequence[OwnTask]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_output(self._path, json.dumps([asdict(own) for own in tasks], indent=1) + "\n")


def _parts(text: str) -> tuple[str, str]:
    """The file or module that a text names, and the object within; empty for the module."""
    where, _, name = text.rpartition(":")
    return (text, "") if text.endswith(".py") or not where else (where, name)
