"""References: workloads that are known well, from which predictions of others start.

A reference is the cost model fitted to a full table, how far the table deviates from it, and, for
those that people build on their own board, that deviation in every mode. The ones that ship are
parameters only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from powerctl.boards import Board, load_board
from powerctl.cost_model import Hardware, Signature
from powerctl.durable import home_folder, write_output
from powerctl.errors import InvalidInput, UnknownName
from powerctl.fields import Amount, Count, Size, build
from powerctl.modes import FloatArray, IntArray, ModeArrays
from powerctl.plugins import toml_files
from powerctl.powertrain.kernels import Deviations
from powerctl.reading import DATA, misread, parse_arrays, read_bytes, read_toml
from powerctl.toml_writing import toml_text

_SHIPPED = resources.files("powerctl") / "references"
VERSION = 1


@dataclass(frozen=True, eq=False)
class Residual:
    """How a reference deviates from its cost model, in every mode of its board.

    Attributes
    ----------
    l4t : str
        Release of the board whose modes these are.
    batch_sizes : IntArray, shape (n_sizes,)
        That it was measured with.
    smooth, spikes : FloatArray, shape (n_sizes, 2, n_modes)
        Of log time and log power: what varies smoothly, and what single modes have beyond it.
    """

    l4t: str
    batch_sizes: IntArray
    smooth: FloatArray = field(repr=False)
    spikes: FloatArray = field(repr=False)

    def at(self, board: Board, modes: ModeArrays, batch_size: FloatArray) -> FloatArray:
        """Smooth and spikes in some modes, shape (2, 2, n_modes); 0 in modes it does not know."""
        found = load_board(board.name, self.l4t).space.indices(modes)
        octaves = np.abs(np.log2(np.asarray(batch_size)[..., None] / self.batch_sizes))
        nearest = np.broadcast_to(octaves.argmin(axis=-1), found.shape)
        both = np.array([self.smooth, self.spikes])[:, nearest, :, found]
        return np.moveaxis(both, 0, -1) * (found >= 0)


@dataclass(frozen=True, eq=False)
class Reference:
    """A workload on a board, fitted to a table.

    Attributes
    ----------
    name, board, kind : str
        Of the reference; ``"train"`` or ``"infer"``.
    batch_size : int
        Samples of a minibatch, where its table did not say.
    batched : bool
        Whether its table had several batch sizes, so that fixed parts are known.
    source : str
        Where it comes from.
    n_rows : int
        Measurements it was fitted to.
    time_error_pct, power_error_pct : float
        Mean absolute percentage error of the cost model on them.
    signature, hardware
        The fitted cost model.
    deviations : Deviations
        Widths of what is left.
    residual : Residual, optional
        What is left, mode by mode.
    """

    name: str
    board: str
    kind: str
    batch_size: Size
    batched: bool
    source: str
    n_rows: Count
    time_error_pct: Amount
    power_error_pct: Amount
    signature: Signature
    hardware: Hardware
    deviations: Deviations
    residual: Residual | None = field(default=None, repr=False)


def user_folder() -> Path:
    """Where a person's own references are: ``$POWERCTL_HOME/references``."""
    return home_folder() / "references"


def reference_names() -> list[str]:
    """Names of the references that ship, and of the person's own."""
    folder = user_folder()
    own = toml_files(folder) if folder.is_dir() else {}
    return sorted({*toml_files(_SHIPPED), *own})


def load_reference(name: str) -> Reference:
    """A reference by its name (the person's own before those that ship), or of a ``.toml`` file.

    Raises
    ------
    UnknownName
        If there is none of that name.
    InvalidInput
        If the file is damaged, or of a newer version.
    """
    if name.endswith(".toml"):
        return _read(Path(name))
    if name not in reference_names():
        hint = "; or the path of a .toml file"
        raise UnknownName("reference", name, reference_names(), hint)
    own = user_folder() / f"{name}.toml"
    return _read(own) if own.exists() else _read_shipped(name)


@cache
def _read_shipped(name: str) -> Reference:
    return _read(_SHIPPED / f"{name}.toml")


def _read(path: Any) -> Reference:
    data = read_toml(path)
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InvalidInput(f"{path}: of version {version}, made by a newer powerctl; upgrade")
    packed = None
    if "residual" in data:
        packed = read_bytes(Path(path).parent / str(data["residual"]), DATA)
    return reference_of(data, packed, str(path))


def write_reference(reference: Reference, path: Path) -> None:
    """Write the ``.toml`` that `load_reference` reads, and its residual as ``.npz`` beside it."""
    data, packed = contents_of(reference)
    if packed is not None:
        data["residual"] = f"{path.stem}.npz"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None
    if packed is not None:
        write_output(path.with_suffix(".npz"), packed)
    write_output(path, toml_text({"version": VERSION, **data}, digits=5))


def contents_of(
    reference: Reference, *, exact: bool = False
) -> tuple[dict[str, Any], bytes | None]:
    """A reference as plain values for a file, and its residual packed.

    The residual is kept to four digits; where it has more and must be `exact`, in full.
    """
    data = {f.name: getattr(reference, f.name) for f in fields(Reference) if f.name != "residual"}
    data |= {name: asdict(data[name]) for name in _PARTS}
    if reference.residual is None:
        return data, None
    whole = {name: getattr(reference.residual, name) for name in ("smooth", "spikes")}
    short = {name: values.astype(np.float16) for name, values in whole.items()}
    is_whole = all(np.array_equal(short[name], values) for name, values in whole.items())
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        l4t=reference.residual.l4t,
        batch_sizes=reference.residual.batch_sizes,
        **(short if is_whole or not exact else whole),
    )
    return data, buffer.getvalue()


def reference_of(data: dict[str, Any], packed: bytes | None, where: str) -> Reference:
    """The reference of what `contents_of` gives; `where` it was read, for errors."""
    where = f"{where}: not a reference, or damaged"
    plain = {name: value for name, value in data.items() if name not in ("version", "residual")}
    reference = build(Reference, plain, where)
    with misread(f"{where}: board"):
        load_board(reference.board)
    if packed is None:
        return reference
    with misread(f"{where}: residual"):
        return replace(reference, residual=_residual_of(packed, reference.board))


_PARTS = ("signature", "hardware", "deviations")


def _residual_of(packed: bytes, board: str) -> Residual:
    arrays = parse_arrays(packed, "its file")
    residual = Residual(
        l4t=str(arrays["l4t"]),
        batch_sizes=arrays["batch_sizes"].astype(np.int64),
        smooth=arrays["smooth"].astype(np.float64),
        spikes=arrays["spikes"].astype(np.float64),
    )
    wanted = (len(residual.batch_sizes), 2, len(load_board(board, residual.l4t).space))
    for values in (residual.smooth, residual.spikes):
        if values.shape != wanted or not np.isfinite(values).all():
            raise InvalidInput(f"of shape {values.shape}, not {wanted} of finite numbers")
    return residual


def known_references(names: Sequence[str] | None = None) -> list[Reference]:
    """References of some names; by default all there are."""
    return [load_reference(name) for name in (reference_names() if names is None else names)]
