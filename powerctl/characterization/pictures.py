"""The samples that powerctl brings along: scikit-learn's digits, and pictures that it generates."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from powerctl.characterization.storing import Sample
from powerctl.digits import load_digits

N_CLASSES = 10
_SIDE = 256  # of generated pictures; decoding one costs about what one of ImageNet does
_QUALITY = 90
_SMOOTH = 16  # side of the coarse noise that the shapes of a picture come from

Image = NDArray[np.float32]


def digits() -> Iterator[Sample]:
    """1,797 handwritten digits as PNG files of 8 x 8 pixels."""
    from PIL import Image as Pillow

    for image, label in zip(*load_digits(), strict=True):
        yield _encoded(Pillow.fromarray((image * 15.9).astype(np.uint8)), "PNG"), int(label)


def generated(count: int, seed: int = 0) -> Iterator[Sample]:
    """JPEG pictures of 256 x 256 pixels, of shapes and grain, about 25 KB each."""
    from PIL import Image as Pillow

    rng = np.random.default_rng(seed)
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
