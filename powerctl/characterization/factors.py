"""What a study varies: workers, prefetch, storage, batch size, power mode, and the observer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from powerctl.errors import InvalidInput, UnknownName

Level = int | str | bool
PREFETCH = 2  # torch's own


@dataclass(frozen=True)
class Configuration:
    """One way to run the workload: a level of every factor.

    Attributes
    ----------
    kind : str
        ``"train"`` or ``"infer"``.
    workers : int
        Processes of the DataLoader; 0 loads in the process that trains.
    prefetch : int
        Minibatches that each worker loads ahead; 0 without workers, which load none ahead.
    storage : str
        Where samples lie: of stored images ``files`` or ``packed``, ``@FOLDER`` behind it for one
        elsewhere; of the twin a kind of disc.
    batch_size : int
        Samples of a minibatch.
    mode : str
        A power mode or preset as the board's catalogue writes it; empty: as it is found.
    observer : bool
        Whether CPU, GPU and memory are sampled meanwhile.
    """

    kind: str = "train"
    workers: int = 4
    prefetch: int = PREFETCH
    storage: str = "files"
    batch_size: int = 16
    mode: str = ""
    observer: bool = True

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("prefetch", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} is {getattr(self, name)}, below {least}")
        if self.workers == 0:
            object.__setattr__(self, "prefetch", 0)  # one name for what is the same
        elif self.prefetch == 0:
            raise InvalidInput("workers load at least 1 minibatch ahead: --prefetch from 1")


@dataclass(frozen=True)
class Factor:
    """A thing that is varied: its name on the command line, for people, and in a configuration."""

    name: str
    title: str
    field: str
    kind: str = "train"

    def set(self, configuration: Configuration, level: Level) -> Configuration:
        """The configuration with another level of this factor; it is of this factor's kind."""
        if self.name == "prefetch" and configuration.workers == 0:
            return configuration
        if self.name == "workers" and configuration.prefetch == 0:
            configuration = replace(configuration, workers=1, prefetch=PREFETCH)
        changes: dict[str, Any] = {self.field: level}
        return replace(configuration, kind=self.kind, **changes)

    def level(self, configuration: Configuration) -> Level:
        """The level of this factor in a configuration."""
        level: Level = getattr(configuration, self.field)
        return level

    def shown(self, level: Level) -> str:
        """A level for people."""
        if isinstance(level, bool):
            return "on" if level else "off"
        return str(level) or "as found"


FACTORS = {
    factor.name: factor
    for factor in (
        Factor("workers", "DataLoader workers", "workers"),
        Factor("prefetch", "prefetched minibatches a worker", "prefetch"),
        Factor("storage", "storage", "storage"),
        Factor("batch", "batch size", "batch_size"),
        Factor("mode", "power mode", "mode"),
        Factor("observer", "the observer", "observer"),
        Factor("infer-batch", "inference batch size", "batch_size", kind="infer"),  # last: see set
    )
}


def factor(name: str) -> Factor:
    """The factor of a name."""
    if name not in FACTORS:
        raise UnknownName("factor", name, FACTORS)
    return FACTORS[name]


def described(configuration: Configuration, baseline: Configuration) -> str:
    """How a configuration differs from the baseline, for people; empty if it does not."""
    parts = []
    if configuration.kind != baseline.kind:
        parts.append(configuration.kind)
    for each in FACTORS.values():
        level = each.level(configuration)
        if each.name != "infer-batch" and level != each.level(baseline):
            if each.name == "prefetch" and 0 in (configuration.workers, baseline.workers):
                continue  # that there are no workers says it
            parts.append(f"{each.name} {each.shown(level)}")
    return ", ".join(parts)
