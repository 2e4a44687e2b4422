"""Who the clients of a run are, why some cannot take part, and warnings about its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from powerctl.fields import Count, Measured, build, checked
from powerctl.reading import NoFile, misread, read_json
from wattfed.server.run.contender import Contender
from wattfed.strategies.offers import Offers
from wattfed.strategies.protocol import NodeNumber
from wattfed.strategies.run_config import RunConfig

MOST_TOLD = 1000  # clients whose reasons are told one by one
_NAMED = 8  # clients in a sentence


@dataclass(frozen=True)
class Group:
    """Clients in a row that are called the same: the name of a board, or of one node.

    `maxn_j` is what a minibatch is expected to take them at MAXN. `node` is the number that Flower
    gave to the node; None in a simulation.
    """

    name: str
    first: Count
    last: Count
    maxn_j: Measured
    node: NodeNumber | None = None

    @property
    def who(self) -> tuple[str, int, int]:
        """Its name, and the numbers of its first and last client."""
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
    charged : tuple of str
        What minibatches are charged as, and what that is from: each that some client says.
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
    charged: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        offers: Offers,
        names: ArrayLike,
        unable: Mapping[int, str],
        charged: Iterable[str] = (),
        nodes: Sequence[int] = (),
    ) -> Participants:
        """Those of some offers: what each is called, why it cannot take part, its node if any."""
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
            groups=_groups(offers, names, maxn_j, nodes),
            chance=float(labels.max() / labels.sum()) if len(labels) > 1 and labels.any() else None,
            modes=(float(ratios.min()), float(ratios.max())) if len(ratios) else None,
            unable=unable,
            n_unable=n - int(offers.able.sum()),
            charged=tuple(sorted({*charged} - {""})),
        )

    def followed_by(self, later: Participants) -> Participants:
        """The participants of a later round, with what was said and expected before the first."""
        if [group.who for group in self.groups] != [group.who for group in later.groups]:
            return replace(later, warnings=self.warnings)
        unable, n_unable, charged = later.unable, later.n_unable, later.charged
        return replace(self, unable=unable, n_unable=n_unable, charged=charged)

    def warned(self, config: RunConfig) -> Participants:
        """The same with warnings about a plan, a sentence each; none where all is well."""
        found = []
        is_blind = Contender.of(config).power == "maxn"  # takes whoever is there
        able = self.clients - self.n_unable
        if self.n_unable and not is_blind:
            found.append(self.unable_words)
        if 0 < able < config.per_round and not is_blind:
            found.append(f"per-round is {config.per_round}, but only {able} can take part")
        if 0 < self.minibatches <= config.local_epochs:
            found.append(
                f"half of the clients have {self.examples} examples or fewer: one minibatch, and "
                f"{self.minibatches} steps a round, which may be too little to learn; use fewer "
                "clients, more --local-epochs or a larger --per-round"
            )
        goal = config.goal
        if self.chance and goal and goal.metric == "accuracy":
            found += [
                f"target accuracy {level:g} is not above chance: guessing the most frequent label "
                f"gives {self.chance:.3f}"
                for level in goal.levels
                if level <= self.chance
            ]
        return replace(self, warnings=tuple(found))

    def charged_words(self, config: RunConfig) -> str:
        """What the minibatches of a run are charged as, as far as it is known."""
        more = len(self.charged) - _NAMED
        words = [*self.charged[:_NAMED], *([f"{more} others"] if more > 0 else [])]
        return " or ".join(words) or config.workload or "their own workload"

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

    def told(self, reasons: Mapping[str, Sequence[int]]) -> str:
        """Clients by the kind of reason that keeps them out, each with the first one's words."""
        return "; ".join(
            f"{self.named(clients)} ({self.unable[clients[0]]})" for clients in reasons.values()
        )

    def named(self, clients: Sequence[int], most: int = _NAMED) -> str:
        """Some clients by their numbers and boards or nodes, such as "clients 0 1 orin-agx"."""
        by_name = [
            " ".join([*map(str, same), *([name] if name else [])])
            for name, same in groupby(clients[:most], self.name_of)
        ]
        more = f" and {len(clients) - most:,} more" if len(clients) > most else ""
        noun = "client" if len(clients) == 1 else "clients"
        return f"{noun} {', '.join(by_name)}{more}"

    @property
    def everyone(self) -> str:
        """The first clients by their numbers and names."""
        return self.named([c for group in self.groups for c in range(group.first, group.last + 1)])

    @property
    def unable_words(self) -> str:
        """Who cannot take part now, and why."""
        more = self.n_unable - len(self.unable)
        rest = f"; and {more:,} more" if more else ""
        counted = f"{self.n_unable:,} of {self.clients:,} clients"
        return f"{counted} cannot take part: {self.told(self.reasons())}{rest}"

    def record(self) -> dict[str, Any]:
        """The participants as JSON holds them; clients are listed by their reason."""
        by_reason: dict[str, list[int]] = {}
        for client, why in self.unable.items():
            by_reason.setdefault(why, []).append(client)
        return {**asdict(self), "unable": by_reason}

    @classmethod
    def of_run(cls, folder: Path) -> Participants:
        """The participants in a run's folder; none where older code has written none.

        Raises
        ------
        InvalidInput
            If it is damaged.
        """
        path = folder / "participants.json"
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


def _groups(
    offers: Offers, names: ArrayLike, maxn_j: np.ndarray, nodes: Sequence[int]
) -> tuple[Group, ...]:
    if not len(offers):
        return ()
    client, called = offers.client, np.asarray(names)
    starts = np.flatnonzero((np.diff(client) != 1) | (called[1:] != called[:-1])) + 1
    bounds = [0, *starts.tolist(), len(client)]
    return tuple(
        Group(
            *(str(called[a]), int(client[a]), int(client[b - 1]), float(maxn_j[a:b].mean())),
            node=nodes[a] if nodes else None,
        )
        for a, b in pairwise(bounds)
    )


def headline(config: RunConfig, clients: int, charged: str, fleet: str = "") -> str:
    """A run in a line: who learns what, what it is charged as, how long, by which policy."""
    rounds = f"up to {config.per_round} a round, {config.rounds} rounds"
    return (
        f"{task_line(config, clients, charged, fleet)}; {Contender.of(config).policy}, {rounds}, "
        f"{f'until {config.goal}' if config.goal and config.goal.levels else 'no target'}"
    )


def task_line(config: RunConfig, clients: int, charged: str, fleet: str) -> str:
    """How many clients learn what, and what a minibatch is charged as."""
    of = f" of {fleet}" if fleet else ""
    return (
        f"{clients:,} clients{of} learn {config.task}, and are charged {charged} for each minibatch"
    )
