"""Typed fields: what an annotation of `Recipe` admits, says, and reads from text or JSON."""

from __future__ import annotations

import inspect
import math
import re

SPELLED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a word",
    "tuple[int, ...]": "whole numbers separated by commas",
    "tuple[float, ...]": "numbers separated by commas",
    "tuple[str, ...]": "words separated by commas",
}


def has_type(value, annotation: str) -> bool:
    """Whether a value is what an annotation such as `int` or `tuple[float, ...]` names."""
    if item := _item(annotation):
        return isinstance(value, tuple) and all(has_type(each, item) for each in value)
    if annotation == "bool" or isinstance(value, bool):
        return annotation == "bool" and isinstance(value, bool)
    if annotation == "float":
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, {"int": int, "str": str}[annotation])


def parse(name: str, value, annotation: str):
    """Turn command-line text or a JSON value into the field's type, or raise `ValueError`.

    >>> parse("stages", "64,128", "tuple[int, ...]")
    (64, 128)
    """
    if item := _item(annotation):
        items = value
        if isinstance(value, str):
            items = [part for part in value.strip("()").split(",") if part]
        if isinstance(items, (list, tuple)):
            return tuple(parse(name, part, item) for part in items)
    elif isinstance(value, str) and annotation != "str":
        try:
            if annotation == "bool":
                return {"true": True, "yes": True, "false": False, "no": False}[value.lower()]
            number = float(value) if annotation == "float" else int(value)
            if math.isfinite(number):
                return number
        except (KeyError, ValueError, OverflowError):
            pass
    elif annotation == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not has_type(value, annotation):
        raise ValueError(f"{name} must be {SPELLED[annotation]}, got {value!r}")
    return value


def spell(value) -> str:
    """Return a value as text that `parse` reads.

    >>> spell((64, 128)), spell(True), spell(0.5)
    ('64,128', 'true', '0.5')
    """
    if isinstance(value, tuple):
        return ",".join(map(spell, value)) or "()"
    return str(value).lower() if isinstance(value, bool) else str(value)


def meanings(cls) -> dict[str, dict[str, str]]:
    """Return section -> field -> what it means, from the comments beside the fields of a class.

    A section is a line of comment between them; fields before the first are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for line in inspect.getsource(cls).splitlines():
        if heading := re.fullmatch(r"    # (.+)", line):
            section = found.setdefault(heading[1], {})
        elif found and (field := re.fullmatch(r"    (\w+): [^#]+?  # (.+)", line)):
            section[field[1]] = field[2]
        elif found and line.startswith("    def "):
            break
    return found


def _item(annotation: str) -> str:
    inside = annotation.removeprefix("tuple[")
    return "" if inside == annotation else inside.partition(",")[0]
