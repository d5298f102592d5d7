"""Typed fields: what an annotation of `Recipe` admits, says, and reads from text or JSON."""

from __future__ import annotations

import math

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
        items = [part for part in value.split(",") if part] if isinstance(value, str) else value
        if isinstance(items, (list, tuple)):
            return tuple(parse(name, part, item) for part in items)
    elif isinstance(value, str) and annotation != "str":
        try:
            if annotation == "bool":
                return {"true": True, "yes": True, "false": False, "no": False}[value.lower()]
            number = float(value) if annotation == "float" else int(value)
            if math.isfinite(number):
                return number
        except (KeyError, ValueError):
            pass
    elif annotation == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not has_type(value, annotation):
        raise ValueError(f"{name} must be {SPELLED[annotation]}, got {value!r}")
    return value


def _item(annotation: str) -> str:
    inside = annotation.removeprefix("tuple[")
    return "" if inside == annotation else inside.partition(",")[0]
