"""Workloads: what runs on a device. One minibatch of a workload is the unit of time everywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated

from powerctl.cost_model import Signature
from powerctl.durable import write_output
from powerctl.errors import InvalidInput
from powerctl.fields import Count, Range, Size, build
from powerctl.plugins import OR_A_FILE, Kind, toml_files
from powerctl.reading import read_toml
from powerctl.toml_writing import toml_text

_STAND_IN = {"infer": "mobilenetv3-infer", "train": "mobilenetv3-train"}


@dataclass(frozen=True)
class Workload:
    """A training or inference job with a batch size.

    Attributes
    ----------
    name, title : str
        Catalogue name, and the name for people.
    kind : str
        ``"train"`` or ``"infer"``.
    batch_size : int
        Samples of one minibatch.
    signature : Signature or None
        What a minibatch costs, independent of the board; None for a workload that only a real
        device can time.
    source : str
        What the signature comes from, and its error.
    parameters : int
        Of the model, for the time of its transfer.
    counted_share : float or None
        Of a signature that was only counted, the share of its bytes that operators with a formula
        move: 0 if nothing is known of the workload. None for one that was fitted to measurements.
    """

    name: str
    kind: str
    batch_size: Size
    signature: Signature | None = None
    title: str = ""
    source: str = ""
    parameters: Count = 0
    counted_share: Annotated[float, Range(0, 1)] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("train", "infer"):
            raise InvalidInput(f"workload {self.name}: kind is 'train' or 'infer', not {self.kind}")
        if self.batch_size < 1:
            raise InvalidInput(f"workload {self.name}: batch size {self.batch_size} is below 1")

    def __hash__(self) -> int:
        return hash((self.name, self.batch_size))  # quick: workloads are keys of caches

    @property
    def model_bytes(self) -> int:
        """Size of the model in single precision."""
        return 4 * self.parameters

    @property
    def counted_signature(self) -> Signature | None:
        """What counts say of it; None where it was fitted to measurements, or nothing is known."""
        return self.signature if self.counted_share else None

    def with_batch_size(self, batch_size: int) -> Workload:
        """The same workload with another batch size."""
        return replace(self, batch_size=batch_size)


WORKLOADS = Kind[Workload](
    "workload",
    "powerctl.workloads",
    toml_files(resources.files("powerctl") / "workloads"),
    Workload,
    hint=OR_A_FILE,
)


def workload_names() -> list[str]:
    """Names of all workloads whose signature ships with powerctl, or with what is installed."""
    return WORKLOADS.names()


@cache
def load_workload(name: str) -> Workload:
    """A workload of the catalogue, of a ``.toml`` file in the same form, or of others."""
    path = WORKLOADS.find_described(name)
    if isinstance(path, Workload):
        return path
    where = f"{path}: not a workload"
    told = read_toml(path)
    if Path(name) != path or "name" not in told:  # people know it by what they found it by
        told["name"] = name
    workload = build(Workload, told, where, ignored=None)
    if workload.signature is None:
        raise InvalidInput(f"{where}: no signature")
    return workload


@cache
def stand_in(kind: str) -> Signature:
    """What an unknown workload of a kind is taken to cost: as a small network does."""
    signature = load_workload(_STAND_IN[kind]).signature
    assert signature is not None
    return signature


def write_workload(workload: Workload, path: Path) -> None:
    """Write a workload as the ``.toml`` file that `load_workload` reads, to four digits."""
    if workload.signature is None:
        raise InvalidInput(f"{workload.name} has no signature to write")
    parts = ("name", "title", "kind", "batch_size", "parameters", "source", "counted_share")
    told = {name: getattr(workload, name) for name in parts}
    write_output(path, toml_text({**told, "signature": asdict(workload.signature)}, digits=4))
