"""The configuration of one run: one set of keys for pyproject.toml, commands and results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Annotated, Any

from powerctl.accelerator import FLOAT32, PRECISIONS
from powerctl.errors import InvalidInput, UnknownName
from powerctl.fields import Range, check_name, checked
from wattfed.strategies.accounting import ACCOUNTINGS, CHARGED
from wattfed.strategies.evaluation import EvaluationPlan
from wattfed.strategies.offers import WEIGHT_CAP
from wattfed.strategies.protocol import POWER_POLICIES
from wattfed.strategies.round_policy import RoundPolicy
from wattfed.strategies.target import RunGoal

FREE = (
    *("data-dir", "out-dir", "name", "min-nodes", "workers", "timeout-s"),
    *("resume", "checkpoint-every", "rounds", "target-accuracy", "target"),
    *("budget-j", "budget-s", "log"),
)
"""Where a run is, how it is run and how long: what its rounds so far do not depend on."""
_LONGEST_NAME = 100
_UNPRINTED = re.compile(r"[^-+.:=()\w]+")
_ALSO = " =+:,@()"  # in names of runs, which tell of policies and their parameters
_BOUNDS: dict[type, Any] = {
    str: Annotated[str, Range(0, 10_000, printable=True)],
    bool: bool,
    int: Annotated[int, Range(-(2**31), 2**63 - 1)],
    float: Annotated[float, Range(-1e15, 1e15)],
}


def _option(default: Any, about: str, **more: Any) -> Any:
    return field(default=default, metadata={"about": about, "kind": type(default), **more})


def _workers(given: object) -> int | str:
    """A number of processes, or else what the run's configuration checks."""
    return int(str(given)) if re.fullmatch(r"-?\d+", str(given)) else str(given)


@dataclass(frozen=True)
class RunConfig:
    """A federated run, complete: the same configuration gives the same result.

    Each field's metadata says what it is about, in the words that command lines show, and what
    makes a value of its kind of what was given.
    """

    task: str = _option(
        "digits",
        "What the clients learn: digits, images-cnn, fashion-mnist, fortunes, cifar10, or yours: "
        "my_task.py.",
    )
    workload: str = _option(
        "",
        "Workload whose time and energy each minibatch is charged: a name or a file. Default: "
        "mobilenetv3-train for wattfed's tasks; your own task is counted.",
    )
    fleet: str = _option(
        "twenty-jetsons", "Fleet to simulate: a name, a .toml file or pkg.mod:Name."
    )
    strategy: str = _option(
        "pace",
        "Client selection, such as pace or oort(clip=0.9), or your own: pkg.mod:Name. wattfed "
        "strategies lists all.",
    )
    power: str = _option(
        "slack",
        "Power policy of the selected clients: maxn (ignores limits), preset (of nvpmodel, by the "
        "power limit), fastest within the limits, or slack (least energy that meets the deadline; "
        "pace always does this).",
    )
    aggregation: str = _option("fedavg", "Flower's aggregation: fedavg, fedprox, multikrum, ...")
    proximal_mu: float = _option(
        0.1, "Strength of fedprox: how much it keeps clients near the global model."
    )
    hostile: int = _option(
        1, "Hostile clients in a round that fedtrimmedavg, krum, multikrum or bulyan tolerates."
    )
    clip_norm: float = _option(
        0.0, "Clip updates that are longer than this many medians of the round; 0 clips none."
    )
    weight_cap: float = _option(
        WEIGHT_CAP,
        "Most examples that a client counts for, in medians of the round; 0 sets no limit.",
    )
    min_reports: int = _option(1, "With fewer updates in a round, the model does not change.")
    start_from: str = _option(
        "", "File (.pt) with the weights to start from; empty: random weights."
    )
    rounds: int = _option(15, "Number of rounds.")
    target_accuracy: float = _option(
        0.0,
        "Stop when the mean of the last three evaluations reaches this accuracy; 0 runs all "
        "rounds.",
    )
    target: str = _option(
        "",
        "Metric by which the run is judged, and the value at which it stops: METRIC or "
        "METRIC=VALUE, such as mAP=0.5 or loss=0.3. Default: the task's own metric.",
    )
    accounting: str = _option(
        CHARGED,
        "Energy that counts for the budget and for pace: training (with transfers), charged "
        "(everything that the round's participants take), or always-on (also the rest of the "
        "fleet).",
    )
    budget_j: float = _option(
        0.0, "Energy budget of the fleet in joules: the run stops when it is spent; 0: no limit."
    )
    budget_s: float = _option(
        0.0, "Time budget of the fleet in seconds, on its own clock; 0: no limit."
    )
    unsupervised: bool = _option(
        False,
        "Do not go back to the best model when the run diverges, and do not end it when it no "
        "longer improves.",
    )
    per_round: int = _option(6, "Clients in a round (pace may take fewer).")
    over_commit: float = _option(
        1.0,
        "Ask this many times per-round clients; the round ends with the first per-round of them.",
    )
    buffer: int = _option(
        0, "Asynchronous: aggregate whenever this many updates have come; 0 trains in rounds."
    )
    late: str = _option(
        "drop", "Updates that come after their round: drop, or weigh by refl, fedbuff, equal, ..."
    )
    max_staleness: int = _option(5, "Drop updates that are more rounds late than this.")
    deadline_s: float = _option(
        0.0, "Round deadline of fedcs in seconds; 0 derives it from the offers."
    )
    evaluate: str = _option(
        "auto",
        "Where models are evaluated: server, clients, both, or auto (on the clients if the task "
        "has no data on the server).",
    )
    evaluate_every: int = _option(1, "Clients evaluate after every this many rounds.")
    evaluate_share: float = _option(0.2, "Share of the clients that evaluate.")
    local_epochs: int = _option(5, "How often a client goes through its data in a round.")
    learning_rate: float = _option(0.05, "Learning rate of the clients' SGD.")
    precision: str = _option(
        FLOAT32,
        "Number format of the forward pass in training: float32, or bfloat16 (torch's autocast) "
        "if the device supports it. Weights, losses and messages stay float32.",
    )
    dirichlet_alpha: float = _option(
        0.3, "How evenly labels are split over the clients, if no skew is given."
    )
    skew: str = _option(
        "",
        "How the data are split: dirichlet:0.3, shards:2, quantity:1.2, iid or natural. Default: "
        "dirichlet with dirichlet-alpha.",
    )
    label_privacy: float = _option(
        0.0, "Epsilon of the Laplace noise on the label counts that clients send; 0: no noise."
    )
    no_labels: bool = _option(False, "Clients send no label counts (haccs needs them).")
    seed: int = _option(0, "Random seed of the run.")
    data_dir: str = _option("", "Folder of a data set that is not included, such as CIFAR-10.")
    out_dir: str = _option("runs", "Folder for results.")
    log: str = _option(
        "",
        "Write each round to a tracker too: tensorboard[:DIR], mlflow[:URI] or pkg.mod:Name.",
    )
    name: str = _option(
        "",
        "Name of the run's folder. Default: task, strategy, power, seed and changed options.",
    )
    min_nodes: int = _option(1, "Nodes to wait for before the first round.")
    workers: int | str = _option(
        0,
        "Number of processes; 0 chooses it. Or ray[:HOST:PORT]: all cores or GPUs of a Ray "
        "cluster. The result is the same.",
        kind=_workers,
        metavar="N|ray",
    )
    resume: bool = _option(
        False, "Continue from the last checkpoint in the run's folder, if there is one."
    )
    checkpoint_every: int = _option(1, "Write a checkpoint every this many rounds; 0: never.")
    settings: tuple[tuple[str, Any], ...] = _option((), "For the task of your own; repeat.")
    timeout_s: float = _option(600.0, "Seconds to wait for nodes and replies.")

    def __post_init__(self) -> None:
        for item in fields(self):
            value, what = getattr(self, item.name), flag(item.name)
            if isinstance(value, str | int | float):
                checked(what, value, _BOUNDS[type(value)])
        for part in self.name.split("/") if self.name else ():  # of a run, or of one against it
            check_name(part, "the name of a run", _ALSO)
        for key in ("rounds", "per_round", "local_epochs", "min_nodes", "min_reports"):
            if getattr(self, key) < 1:
                raise InvalidInput(f"{flag(key)} must be at least 1, got {getattr(self, key)}")
        for key in ("learning_rate", "dirichlet_alpha", "timeout_s"):
            if not getattr(self, key) > 0:
                raise InvalidInput(f"{flag(key)} must be positive, got {getattr(self, key):g}")
        zero_or_more = (
            "budget_j",
            "budget_s",
            "deadline_s",
            "proximal_mu",
            "hostile",
            "clip_norm",
            "weight_cap",
            "seed",
            "label_privacy",
            "checkpoint_every",
            *(["workers"] if isinstance(self.workers, int) else []),
        )
        for key in zero_or_more:
            if not getattr(self, key) >= 0:
                raise InvalidInput(f"{flag(key)} cannot be negative, got {getattr(self, key):g}")
        if not 0 <= self.target_accuracy <= 1:
            raise InvalidInput(
                f"target-accuracy must be between 0 and 1, got {self.target_accuracy:g}; other "
                "numbers by target, such as accuracy=90"
            )
        for key, value in self.settings:
            if key in run_keys():
                raise InvalidInput(f"{key} is a key of the run: give it as such, and not by --set")
            if not isinstance(value, (str, int, float)):
                raise InvalidInput(
                    f"--set {key} is {value!r:.60}: a run holds text, numbers and Booleans"
                )
            if not isinstance(value, str):  # a text of theirs may be anything
                checked(key, value, _BOUNDS[type(value)])
        self.goal, self.cluster  # noqa: B018 - raise for what they cannot be
        self.round_policy, self.evaluation  # noqa: B018 - raise for what they cannot be
        if self.min_reports > self.per_round:
            raise InvalidInput(
                f"min-reports is {self.min_reports}, more than the {self.per_round} of per-round"
            )
        if self.power not in POWER_POLICIES:
            raise UnknownName("power policy", self.power, POWER_POLICIES)
        if self.accounting not in ACCOUNTINGS:
            raise UnknownName("accounting", self.accounting, ACCOUNTINGS)
        if self.precision not in PRECISIONS:
            raise UnknownName("precision", self.precision, PRECISIONS)

    @classmethod
    def from_flower(cls, run_config: Mapping[str, Any]) -> RunConfig:
        """The configuration from Flower's flat run config (keys with hyphens).

        Keys that are not ours are settings of the task, which says whether it knows them.
        """
        own = {key: value for key, value in run_config.items() if key in run_keys()}
        theirs = sorted((key, run_config[key]) for key in run_config.keys() - own.keys())
        known = {flag(f.name): f for f in fields(cls)}
        return cls(**_values("run-config key", known, own), settings=tuple(theirs))

    def changed(self, **options: Any) -> RunConfig:
        """The configuration with other values, by the names of its fields.

        Raises
        ------
        UnknownName
            If there is no such field.
        InvalidInput
            For a value of another kind, or outside its range.
        """
        known = {f.name: f for f in fields(self)}
        return replace(self, **_values("option of a run", known, options))

    def to_flower(self) -> dict[str, Any]:
        """The flat run config that `from_flower` reads."""
        own = {flag(item.name): getattr(self, item.name) for item in fields(self)}
        return {**{key: own[key] for key in run_keys()}, **dict(self.settings)}

    @property
    def round_policy(self) -> RoundPolicy:
        """When rounds close, and what becomes of late updates."""
        return RoundPolicy(self.over_commit, self.buffer, self.late, self.max_staleness)

    @property
    def goal(self) -> RunGoal | None:
        """The metric to be judged by, and what it shall reach; None leaves it to the task."""
        if self.target and self.target_accuracy:
            raise InvalidInput(
                f"give target or target-accuracy, not both: got {self.target} and "
                f"{self.target_accuracy:g}"
            )
        if self.target_accuracy:
            return RunGoal("accuracy", (self.target_accuracy,))
        return RunGoal.parse(self.target) if self.target else None

    @property
    def cluster(self) -> str | None:
        """Address of the Ray cluster that trains, empty for this machine's; None for processes."""
        if isinstance(self.workers, int):
            return None
        if not (found := re.fullmatch(r"ray(?::([^:\s]+:\d+))?", self.workers)):
            raise InvalidInput(
                f"workers is a number of processes, ray or ray:HOST:PORT, got {self.workers!r:.60}"
            )
        return found[1] or ""

    @property
    def evaluation(self) -> EvaluationPlan:
        """Where models are evaluated, and by whom."""
        return EvaluationPlan(self.evaluate, self.evaluate_every, self.evaluate_share)

    @property
    def split(self) -> str:
        """How the data are split over clients; the skew, or that of `dirichlet_alpha`."""
        return self.skew or f"dirichlet:{self.dirichlet_alpha!r}"

    @property
    def run_name(self) -> str:
        """Name of the results' folder.

        Runs that cannot go on from each other have names of their own, all of which `FREE` may
        differ; one that would be too long ends with a digest.
        """
        if self.name:
            return self.name
        named = ("task", "strategy", "power", "seed")
        words = f"{self.task}-{self.strategy}-{self.power}-seed{self.seed}"
        words = re.sub(rf"[^-\w.{re.escape(_ALSO)}]", "-", words)[-_LONGEST_NAME:].lstrip("-.")
        usual = RunConfig(**{key: getattr(self, key) for key in named}).to_flower()
        others = "".join(
            f"-{key}={_UNPRINTED.sub('-', str(value).rpartition('/')[2])}"  # of a path the end
            for key, value in self.to_flower().items()
            if value != usual.get(key) and key not in FREE
        )
        if len(others) > _LONGEST_NAME:
            others = f"{others[:_LONGEST_NAME]}-{hashlib.sha256(others.encode()).hexdigest()[:8]}"
        return words + others


def _values(what: str, known: Mapping[str, Field[Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by field, each made the kind that its field has: Flower keeps `x=8` an int."""
    if unknown := set(given) - set(known):
        raise UnknownName(what, min(unknown), known)
    values = {}
    for key, value in given.items():
        wanted = known[key].metadata["kind"]
        if wanted is tuple and isinstance(value, Mapping):  # settings, from Python
            value = sorted(value.items())
        try:
            values[known[key].name] = wanted(value)
        except (TypeError, ValueError):
            raise InvalidInput(f"{key} must be {wanted.__name__}, got {value!r}") from None
    return values


def changes_between(
    was: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()
) -> list[str]:
    """What differs between two configurations, in words, but for keys that may change.

    Settings of a task may be in one of them alone.
    """
    return [
        f"{key} was {was.get(key, 'nothing')}, not {now.get(key, 'nothing')}"
        for key in {**was, **now}
        if was.get(key) != now.get(key) and key not in free
    ]


def run_keys() -> list[str]:
    """The keys of a run that are ours."""
    return [flag(item.name) for item in fields(RunConfig) if item.name != "settings"]


def flag(field_name: str) -> str:
    """The name of a field on command lines and in Flower's run config."""
    return field_name.replace("_", "-")
