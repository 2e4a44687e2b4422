"""Settings of a user's task on a command line: ``--set model-name=tiny --set batch-size=8``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from powerctl.errors import InvalidInput
from powerctl.reading import in_line, parse_json


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Keys and values of ``KEY=VALUE``: a number or Boolean where it reads as one, else the text.

    Raises
    ------
    InvalidInput
        For a text without a key, or a number that is not finite.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise InvalidInput(f"--set {in_line(text)}: write KEY=VALUE")
        try:
            found = parse_json(value, "")
        except InvalidInput:
            found = value
        if isinstance(found, float) and not math.isfinite(found):
            raise InvalidInput(f"--set {in_line(text)}: a number must be finite")
        settings[key.strip()] = found
    return settings
