"""Ranges as benchmarks take them: ``start:stop:step``, both ends included."""

from __future__ import annotations

from powerctl.errors import InvalidInput


def parse_range(text: str) -> tuple[float, ...]:
    """The values of a range, or of a single number; raises `InvalidInput` if it is neither."""
    try:
        parts = [float(part) for part in text.split(":")]
        if len(parts) == 1:
            return (parts[0],)
        start, stop, step = parts
        if not (start <= stop and step > 0):
            raise ValueError
    except ValueError:
        raise InvalidInput(f"cannot read {text!r} as start:stop:step, such as 10:50:1") from None
    count = int((stop - start) / step + 1e-9) + 1
    return tuple(round(start + step * i, 9) for i in range(count))
