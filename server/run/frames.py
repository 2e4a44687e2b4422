"""Results as tables of pandas, which is an optional package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from powerctl.errors import InvalidInput

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> DataFrame:
    """A table of rows; raises `InvalidInput` where pandas is not installed."""
    try:
        from pandas import DataFrame
    except ImportError:
        raise InvalidInput("to_pandas() needs pandas: pip install 'wattfed[pandas]'") from None
    return DataFrame(list(rows), columns=columns)
