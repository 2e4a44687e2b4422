"""Who the clients of a run are, and why some of them cannot take part: for who judges the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from powerctl.fields import Count, Measured, build, checked
from powerctl.reading import NoFile, misread, read_json
from wattfed.strategies.offers import Offers

MOST_TOLD = 1000  # clients whose reasons are told one by one


@dataclass(frozen=True)
class Group:
    """Clients in a row that are called the same: a board's name, or one node.

    `maxn_j` is what a minibatch is expected to take them at MAXN.
    """

    name: str
    first: Count
    last: Count
    maxn_j: Measured

    @property
    def who(self) -> tuple[str, int, int]:
        """Name and numbers."""
        return self.name, self.first, self.last


@dataclass(frozen=True)
class Participants:
    """The clients of a run, and who of them could not take part when its last round began.

    Attributes
    ----------
    clients : int
        How many there are; 0 where that is not known, as of a run of older code.
    examples, minibatches : int
        Local training examples, and minibatches of the full local work, of the client in the
        middle.
    groups : tuple of Group
        What they are called.
    chance : float or None
        The accuracy of who always guesses the most frequent label; None where labels are not told.
    modes : tuple of (float, float) or None
        The least energy of a minibatch within the client's limits, over that at MAXN: of the
        client for whom that is least, and for whom it is most.
    unable : mapping of int to str
        Why clients cannot take part, the kind of limit first; of `MOST_TOLD` at most.
    n_unable : int
        How many cannot.
    warnings : tuple of str
        What spoke against the plan before the first round.
    """

    clients: int = 0
    examples: int = 0
    minibatches: int = 0
    groups: tuple[Group, ...] = ()
    chance: float | None = None
    modes: tuple[float, float] | None = None
    unable: Mapping[int, str] = field(default_factory=dict)
    n_unable: int = 0
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, offers: Offers, names: Sequence[str], unable: Mapping[int, str]) -> Participants:
        """Those of some offers, by the name of each client and why it cannot take part."""
        n = len(offers)
        maxn_j = offers.maxn_energy_j / np.maximum(offers.minibatches, 1)
        labels = np.maximum(offers.label_counts, 0).sum(axis=0)  # noise may make them negative
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = (offers.energy_j.min(axis=1, initial=np.inf) / offers.maxn_energy_j)[
                offers.able
            ]
        ratios = ratios[np.isfinite(ratios)]
        return cls(
            clients=n,
            examples=int(np.median(offers.examples)) if n else 0,
            minibatches=int(np.median(offers.minibatches)) if n else 0,
            groups=_groups(offers, names, maxn_j),
            chance=float(labels.max() / labels.sum()) if len(labels) > 1 and labels.any() else None,
            modes=(float(ratios.min()), float(ratios.max())) if len(ratios) else None,
            unable=unable,
            n_unable=n - int(offers.able.sum()),
        )

    def followed_by(self, later: Participants) -> Participants:
        """The participants of a later round, with what was said and expected before the first."""
        if [group.who for group in self.groups] != [group.who for group in later.groups]:
            return replace(later, warnings=self.warnings)
        return replace(self, unable=later.unable, n_unable=later.n_unable)

    def group_of(self, client: int) -> Group | None:
        """The group of a client; None where it is not known."""
        found = (group for group in self.groups if group.first <= client <= group.last)
        return next(found, None)

    def name_of(self, client: int) -> str:
        """The board or the node of a client; empty where it is not known."""
        group = self.group_of(client)
        return group.name if group else ""

    def reasons(self, clients: Sequence[int] | None = None) -> dict[str, list[int]]:
        """Of all who cannot take part, or of some of them: the clients by the kind of reason."""
        found: dict[str, list[int]] = {}
        for client in self.unable if clients is None else clients:
            if why := self.unable.get(client):
                found.setdefault(why.partition(":")[0], []).append(client)
        return found

    def record(self) -> dict[str, Any]:
        """As JSON holds it; clients are listed by their reason."""
        by_reason: dict[str, list[int]] = {}
        for client, why in self.unable.items():
            by_reason.setdefault(why, []).append(client)
        return {**asdict(self), "unable": by_reason}

    @classmethod
    def read(cls, path: Path) -> Participants:
        """The participants in a file; an empty one where there is no such file.

        Raises
        ------
        InvalidInput
            If it is damaged.
        """
        where = f"{path}: not readable"
        try:
            record = read_json(path)
        except NoFile:
            return cls()
        with misread(where):
            reasons = checked("unable", record["unable"], Mapping[str, tuple[Count, ...]])
        unable = {client: why for why, clients in reasons.items() for client in clients}
        read = build(cls, {**record, "unable": {}}, where)
        return replace(read, unable=dict(sorted(unable.items())))


def _groups(offers: Offers, names: Sequence[str], maxn_j: np.ndarray) -> tuple[Group, ...]:
    if not len(offers):
        return ()
    client, called = offers.client, np.asarray(names)
    starts = np.flatnonzero((np.diff(client) != 1) | (called[1:] != called[:-1])) + 1
    bounds = [0, *starts.tolist(), len(client)]
    return tuple(
        Group(str(called[a]), int(client[a]), int(client[b - 1]), float(maxn_j[a:b].mean()))
        for a, b in pairwise(bounds)
    )
