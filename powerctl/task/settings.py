"""Settings of a user's task on a command line: ``--set model-name=tiny --set batch-size=8``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from powerctl.errors import InvalidInput
from powerctl.reading import parse_json


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Keys and values of ``KEY=VALUE``: a number or Boolean where it reads as one, else the text.

    Raises
    ------
    InvalidInput
        For a text without a key.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise InvalidInput(f"--set {text}: write KEY=VALUE")
        try:
            settings[key.strip()] = parse_json(value, "")
        except InvalidInput:
            settings[key.strip()] = value
    return settings
