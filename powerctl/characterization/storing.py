"""Pictures as samples on disc: a file for each, or all in one packed file; and reading them back.

Both forms hold the same encoded bytes, so that decoding costs the same and only storage differs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from powerctl.digits import load_digits
from powerctl.durable import replace_file
from powerctl.errors import InvalidInput
from powerctl.fields import Count, build
from powerctl.reading import DATA, parse_json, read_bytes

FORMS = ("files", "packed")
_FILES_PER_FOLDER = 1000

Decode = Callable[[bytes], Any]
Sample = tuple[bytes, int]
N_CLASSES = 10
_SIDE = 256  # of generated pictures; decoding one costs about what one of ImageNet does
_QUALITY = 90
_SMOOTH = 16  # side of the coarse noise that the shapes of a picture come from

Image = NDArray[np.float32]


@dataclass(frozen=True)
class _Index:
    """What says that the samples are whole: the bytes and the label of each."""

    sizes: tuple[Count, ...]
    labels: tuple[int, ...]


class Store(Protocol):
    """Encoded samples and their labels, in files on disc."""

    labels: Sequence[int]

    def read(self, index: int) -> bytes:
        """The bytes of a sample, from the disc unless the kernel has them."""
        ...

    def files(self) -> list[Path]:
        """The files that hold them."""
        ...


class FileStore:
    """A folder with a file for each sample."""

    def __init__(self, folder: Path, labels: Sequence[int]) -> None:
        self.labels = labels
        self._paths = [_path(folder, index) for index in range(len(labels))]

    def read(self, index: int) -> bytes:
        """The bytes of a sample."""
        return self._paths[index].read_bytes()

    def files(self) -> list[Path]:
        """The files, one for each sample."""
        return self._paths


class PackedStore:
    """One file that holds all samples, one behind the other."""

    def __init__(self, path: Path, sizes: Sequence[int], labels: Sequence[int]) -> None:
        self.labels = labels
        self._path = path
        self._ends: NDArray[np.int64] = np.cumsum(np.asarray(sizes, dtype=np.int64))
        self._sizes = sizes
        self._opened: tuple[int, int] | None = None

    def read(self, index: int) -> bytes:
        """The bytes of a sample; a worker opens the file for itself."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), os.open(self._path, os.O_RDONLY))
        size = self._sizes[index]
        return os.pread(self._opened[1], size, int(self._ends[index]) - size)

    def files(self) -> list[Path]:
        """The one file that holds all samples."""
        return [self._path]


class StoredSamples:
    """A map-style data set, as torch's DataLoader takes it: decoded sample and label.

    Parameters
    ----------
    store : Store
        Where the bytes lie.
    decode : callable
        From bytes to an array.
    """

    def __init__(self, store: Store, decode: Decode) -> None:
        self.store = store
        self.decode = decode

    def __len__(self) -> int:
        return len(self.store.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.decode(self.store.read(index)), self.store.labels[index]

    def files(self) -> list[Path]:
        """The files that hold the samples."""
        return self.store.files()


def stored(folder: Path, form: str, name: str, samples: Callable[[], Iterable[Sample]]) -> Store:
    """The samples in a folder, written there first unless they are there.

    Parameters
    ----------
    folder : Path
        Made if need be.
    form : str
        ``files`` or ``packed``.
    name : str
        Of the data set and all that it depends on: another name is another folder.
    samples : callable
        Makes the samples, encoded, with their labels.

    Raises
    ------
    InvalidInput
        If the folder cannot be written.
    """
    if form not in FORMS:
        raise InvalidInput(f"samples are stored as {' or '.join(FORMS)}, not {form!r}")
    place = folder / f"{name.partition(' ')[0]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    index = place / f"{form}.json"
    try:
        if not index.exists():
            place.mkdir(parents=True, exist_ok=True)
            _write(place, form, index, samples())
        content = build(_Index, parse_json(read_bytes(index, DATA), str(index)), str(index))
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot hold the samples: {error.strerror}") from None
    if form == "files":
        return FileStore(place / "files", content.labels)
    return PackedStore(place / "packed.bin", content.sizes, content.labels)


def _write(place: Path, form: str, index: Path, samples: Iterable[Sample]) -> None:
    """Write the samples, then the index that says that they are whole."""
    sizes, labels = [], []
    with open(place / "packed.bin" if form == "packed" else os.devnull, "wb") as packed:
        for number, (encoded, label) in enumerate(samples):
            if form == "files":
                path = _path(place / "files", number)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded)
            else:
                packed.write(encoded)
            sizes.append(len(encoded))
            labels.append(int(label))
    os.sync()
    replace_file(index, json.dumps({"sizes": sizes, "labels": labels}).encode())


def _path(folder: Path, index: int) -> Path:
    return folder / f"{index // _FILES_PER_FOLDER:03d}" / f"{index:06d}.bin"


def digits() -> Iterator[Sample]:
    """1,797 handwritten digits as PNG files of 8 x 8 pixels."""
    from PIL import Image as Pillow

    for image, label in zip(*load_digits(), strict=True):
        yield _encoded(Pillow.fromarray((image * 15.9).astype(np.uint8)), "PNG"), int(label)


def generated(count: int) -> Iterator[Sample]:
    """JPEG pictures of 256 x 256 pixels, of shapes and grain, about 25 KB each."""
    from PIL import Image as Pillow

    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (_SMOOTH, _SMOOTH, 3), dtype=np.uint8)
        shapes = Pillow.fromarray(coarse).resize((_SIDE, _SIDE), Pillow.Resampling.BICUBIC)
        grain = rng.normal(0.0, 8.0, (_SIDE, _SIDE, 3))
        pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
        yield _encoded(Pillow.fromarray(pixels), "JPEG", quality=_QUALITY), index % N_CLASSES


def decoder(shape: tuple[int, ...]) -> Callable[[bytes], Image]:
    """What decodes a picture to an array of channels, height and width, scaled to 0 to 1."""
    channels, height, width = shape
    return partial(_decoded, mode="L" if channels == 1 else "RGB", size=(width, height))


def _decoded(encoded: bytes, mode: str, size: tuple[int, int]) -> Image:
    from PIL import Image as Pillow

    picture = Pillow.open(io.BytesIO(encoded)).convert(mode)
    if picture.size != size:
        picture = picture.resize(size, Pillow.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.float32) / 255
    return np.ascontiguousarray(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))


def _encoded(picture: object, form: str, **options: int) -> bytes:
    target = io.BytesIO()
    picture.save(target, form, **options)  # type: ignore[attr-defined]
    return target.getvalue()
