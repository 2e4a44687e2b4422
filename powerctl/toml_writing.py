"""Plain values written as TOML, as people would write it: one value a line, lists wrapped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 100


def toml_text(values: Mapping[str, Any], within: str = "", digits: int = 17) -> str:
    """A table as TOML: its values first, then its tables and its lists of tables.

    Parameters
    ----------
    values : mapping
        Texts, numbers, truth values, lists of them, tables, and lists of tables; None is left out.
    within : str
        The name of the table, where it is one of another.
    digits : int
        Significant digits of numbers with a fraction; by default all that they have.
    """
    simple = {k: v for k, v in values.items() if not _is_table(v) and v is not None}
    lines = (f"{key} = {_value(value, key, digits)}\n" for key, value in simple.items())
    parts = ["".join(lines)]
    for key, value in values.items():
        name = f"{within}.{key}" if within else key
        if isinstance(value, Mapping):
            parts.append(f"[{name}]\n{toml_text(value, name, digits)}")
        elif _is_table(value):
            parts.extend(f"[[{name}]]\n{toml_text(entry, name, digits)}" for entry in value)
    return "\n".join(part for part in parts if part)


def _is_table(value: object) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, Sequence) and bool(value) and isinstance(value[0], Mapping)


def _value(value: object, key: str, digits: int) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence):
        return _list([_value(entry, "", digits) for entry in value], len(key) + len(" = "))
    return repr(float(f"{value:.{digits}g}") if isinstance(value, float) else value)


def _list(words: list[str], indent: int) -> str:
    line = f"[{', '.join(words)}]"
    if indent + len(line) <= _WIDTH:
        return line
    rows = ["   "]
    for word in words:
        if len(rows[-1]) > len("   ") and len(rows[-1]) + len(word) + len(" ,") > _WIDTH:
            rows.append("   ")
        rows[-1] += f" {word},"
    return "\n".join(["[", *rows, "]"])
