"""The agent's settings: from a TOML file and the command line, with their defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from powerctl.errors import InvalidInput
from powerctl.fields import Amount, Count, Range, build, checked, parse_number
from powerctl.quantities import parse
from powerctl.reading import read_toml

_Some = Annotated[int, Range(1, 1e6)]
_Rate = Annotated[float, Range(0, 1e9)]
_Period = Annotated[float, Range(0.05, 86_400)]
_Seconds = Annotated[float, Range(1e-6, 86_400)]
_LONGEST_SOCKET = 102  # bytes of the path of a Unix socket, less the five of ".gate"


@dataclass(frozen=True)
class ModelFile:
    """Where a model comes from and how it is served.

    Attributes
    ----------
    name, path : str
    task : str
        The task whose model a state dict is of; else empty.
    inputs : str
        Of one sample, as ``3x224x224`` or ``128:int64``. TorchScript does not say.
    latency_s : float
        Budget from arrival to answer.
    batch_size : int
        The planned batch: 1 never waits for company.
    largest_batch : int
        The most requests of a batch.
    workload : str
        The workload of powerctl's catalogue, or file, that its batches cost as much as.
    """

    name: str = ""
    path: str = ""
    task: str = ""
    inputs: str = ""
    latency_s: _Seconds = 0.1
    batch_size: _Some = 1
    largest_batch: _Some = 32
    workload: str = ""


@dataclass(frozen=True)
class AgentLimits:
    """The most that clients may take of the agent.

    Attributes
    ----------
    message_bytes : int
        Largest message either way.
    concurrent : int
        Calls at a time, of all clients; streams count as long as they live.
    queued_bytes : int
        Of requests that wait, all together.
    queue_length : int
        Requests that wait for one model.
    rate_hz, burst : float
        Requests in a second of one client, and how many it may send at once; 0: no limit.
    stream_window : int
        Requests of one stream under way: more are not read.
    load_s, batch_s : float
        The longest that a model which carries code may be read, and that a batch of it may last.
    model_bytes : int
        Of memory for such a model, beside what torch takes; 0: half of the machine's.
    """

    message_bytes: Annotated[int, Range(1024, 2**31 - 1)] = 64 << 20
    concurrent: _Some = 512
    queued_bytes: Annotated[int, Range(1024, 2**40)] = 256 << 20
    queue_length: _Some = 1024
    rate_hz: _Rate = 0.0
    burst: _Rate = 0.0
    stream_window: _Some = 32
    load_s: _Seconds = 120.0
    batch_s: _Seconds = 10.0
    model_bytes: Annotated[int, Range(0, 2**40)] = 0


@dataclass(frozen=True)
class PlanSettings:
    """How the agent plans mode and batch size.

    Attributes
    ----------
    power_w : float
        Limit of the module's power; 0: nothing is planned.
    model : str
        Whose arrivals are followed; may be empty if only one is served.
    training : str
        The workload to leave most room for, as a run's `workload`; empty: least latency.
    period_s : float
        Between two looks at the arrivals.
    window_s, quick_s : float
        In which the rate is estimated, and in which a sudden rise shows.
    """

    power_w: Amount = 0.0
    model: str = ""
    training: str = ""
    period_s: _Period = 1.0
    window_s: _Period = 10.0
    quick_s: _Period = 2.0


@dataclass(frozen=True)
class IdleSettings:
    """What the agent measures in idle time: a few modes of a task.

    Attributes
    ----------
    task : str
        A task that was added to the agent; empty: nothing is measured.
    settings : mapping
        Keys of its own, as a run and its node have them; `batch-size` and `partition-id` too.
    modes : int
        How many modes, at most.
    time_s, energy_j : float
        What all of it may take, of its own turns.
    power_w : float
        Limit of the module's power; 0: none.
    quiet_s : float
        So long nobody has had a turn before it begins.
    """

    task: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    modes: Annotated[int, Range(0, 1000)] = 20
    time_s: _Seconds = 1800.0
    energy_j: Amount = 20_000.0
    power_w: Amount = 0.0
    quiet_s: _Period = 10.0


@dataclass(frozen=True)
class Settings:
    """Everything that `wattfed-agent serve` can be told.

    Attributes
    ----------
    device, mode : str
        As for powerctl; an empty mode leaves the one found.
    socket : str
        Path of the Unix socket.
    listen, tls_cert, tls_key, token_file : str
        Address for TCP, which needs all three files; empty for none.
    metrics : str
        Address of the Prometheus metrics; empty for none.
    state_dir : str
    lease_s : float
        Longest turn of a holder that asks for no other.
    accelerator : str
        Where models live, trained or served: auto, cpu or cuda:N; empty for the environment's.
    threads : int
        Of torch; 0 for its own choice.
    allow_unsafe_models : bool
        Whether models that carry code run without a sandbox.
    model : tuple of ModelFile
    defaults : ModelFile
        Budget and batch sizes of models that say none.
    limits : AgentLimits
    plan : PlanSettings
    idle : IdleSettings
    """

    device: str = "host:orin-agx"
    mode: str = ""
    socket: str = ""
    listen: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    token_file: str = ""
    metrics: str = ""
    state_dir: str = ""
    lease_s: _Seconds = 2.0
    accelerator: str = ""
    threads: Count = 0
    allow_unsafe_models: bool = False
    model: tuple[ModelFile, ...] = ()
    defaults: ModelFile = ModelFile()
    limits: AgentLimits = AgentLimits()
    plan: PlanSettings = PlanSettings()
    idle: IdleSettings = IdleSettings()

    def __post_init__(self) -> None:
        if self.listen and not (self.tls_cert and self.tls_key and self.token_file):
            raise InvalidInput(
                "TCP needs TLS and a token: give --tls-cert, --tls-key and --token-file too"
            )
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET:
            raise InvalidInput(
                f"a socket's path has at most {_LONGEST_SOCKET} bytes: {self.socket} has "
                f"{len(os.fsencode(self.socket))}; give another with --socket"
            )


def default_agent_socket() -> str:
    """Where agent and clients meet if nothing else is said; $WATTFED_AGENT_SOCKET goes before."""
    folder = os.environ.get("XDG_RUNTIME_DIR") or default_state_dir()
    return os.environ.get("WATTFED_AGENT_SOCKET") or str(Path(folder) / "wattfed-agent.sock")


def default_state_dir() -> str:
    """Where the agent keeps what must outlive it."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return str(Path(base) / "wattfed-agent")


def parse_address(text: str, what: str, default_host: str = "") -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, or of ``PORT`` where there is a default host."""
    host, _, port = text.rpartition(":")
    if not (host or default_host) or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"cannot read {what} {text!r}; write it as HOST:PORT")
    return host or default_host, int(port)


def parse_model(text: str, defaults: ModelFile) -> ModelFile:
    """The model written as ``NAME=PATH[,key=value]...``; keys are those of `ModelFile`.

    `latency` is a time with unit, `batch` and `largest` are numbers.
    """
    first, *options = text.split(",")
    name, _, path = first.partition("=")
    if not name or not path:
        raise InvalidInput(f"cannot read model {text!r}; write NAME=PATH[,inputs=3x224x224]")
    given = dict(option.partition("=")[::2] for option in options)
    unknown = set(given) - {"task", "inputs", "latency", "batch", "largest", "workload"}
    if unknown:
        raise InvalidInput(
            f"model {name}: unknown {', '.join(sorted(unknown))}; "
            "known: task, inputs, latency, batch, largest, workload"
        )
    table: dict[str, Any] = {"name": name, "path": path}
    table |= {key: given[key] for key in ("task", "inputs", "workload") if key in given}
    if "latency" in given:
        table["latency_s"] = parse(given["latency"], "time", f"model {name}: latency")
    for key, of_model in (("batch", "batch_size"), ("largest", "largest_batch")):
        if key in given:
            table[of_model] = parse_number(f"model {name}: {key}", given[key], _Some)
    return replace(defaults, **table)


_TABLES: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "defaults": (ModelFile, ("latency_s", "batch_size")),
    "limits": (AgentLimits, ("rate_hz",)),
    "plan": (PlanSettings, ("power_w", "training")),
    "idle": (IdleSettings, ("task",)),
}
"""The tables of a file of settings, and the flags that go into each."""


def read_settings(path: Path | None, **flags: Any) -> Settings:
    """Settings of a TOML file, with those of flags that are not None in their place.

    Parameters
    ----------
    path : Path or None
        Its keys are the fields of `Settings`; ``[[model]]``, ``[defaults]``, ``[limits]``,
        ``[plan]`` and ``[idle]`` are tables of the fields of `ModelFile`, `AgentLimits`,
        `PlanSettings` and `IdleSettings`.
    **flags
        Fields of `Settings`, and of its tables; `models`, texts for `parse_model`, are added to
        those of the file.
    """
    data = read_toml(path) if path else {}
    where = str(path or "settings")
    given = {key: value for key, value in flags.items() if value is not None}
    texts = given.pop("models", ())
    tables = checked(f"{where}, [[model]]", data.pop("model", ()), tuple[Mapping[str, Any], ...])
    for name, (kind, keys) in _TABLES.items():
        own = {key: given.pop(key) for key in keys if key in given}
        data[name] = replace(build(kind, data.get(name, {}), f"{where}, [{name}]"), **own)
    inherited = vars(data["defaults"])
    data["model"] = (
        *(build(ModelFile, inherited | table, f"{where}, [[model]]") for table in tables),
        *(parse_model(text, data["defaults"]) for text in texts),
    )
    ours = {"state_dir": default_state_dir(), "socket": default_agent_socket()}
    return build(Settings, ours | data | given, where)
