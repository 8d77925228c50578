"""JSON that gives back what it was given: tuples, sets, fractions and keys that are no strings survive.

Plain JSON turns tuples into lists and keys into strings; a generator's scorer then meets what it did not write.
"""

import json
from fractions import Fraction
from typing import Any

TAG = "~"


def dumps(value: Any) -> str:
    """Numbers of numpy become Python's. Raises TypeError for what has no form here."""
    return json.dumps(_encoded(value), ensure_ascii=True, separators=(",", ":"))


def loads(text: str) -> Any:
    """Reads what `dumps` wrote."""
    return _decoded(json.loads(text))


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, bool) or type(value) in (str, int, float):
        return value
    if isinstance(value, list):
        return [_encoded(one) for one in value]
    if isinstance(value, tuple):
        return {TAG: "tuple", "items": [_encoded(one) for one in value]}
    if isinstance(value, set | frozenset):
        return {TAG: "set", "items": sorted((_encoded(one) for one in value), key=repr)}
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and TAG not in value:
            return {key: _encoded(one) for key, one in value.items()}
        return {TAG: "dict", "items": [[_encoded(key), _encoded(one)] for key, one in value.items()]}
    if isinstance(value, Fraction):
        return {TAG: "fraction", "items": [value.numerator, value.denominator]}
    return _encoded_other(value)


def _encoded_other(value: Any) -> Any:
    if isinstance(value, str | int | float):  # subclasses: numpy's strings and floats, enumerations
        plain = next(kind for kind in (str, int, float) if isinstance(value, kind))
        return plain(value)
    if hasattr(value, "tolist"):  # numpy's integers, booleans and arrays
        return _encoded(value.tolist())
    raise TypeError(f"a {type(value).__module__}.{type(value).__name__} has no form in JSON")


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: _decoded(one) for key, one in value.items()}
    items = _decoded(value["items"])
    match value[TAG]:
        case "tuple":
            return tuple(items)
        case "set":
            return set(items)
        case "fraction":
            return Fraction(*items)
    return dict(items)
