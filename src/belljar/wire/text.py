"""JSON without the `json` package where the interpreter has its C parts.

`json` imports `re`, `enum` and `functools`: 13 of the 20 ms that the agent would spend on imports. The C scanner and
encoder below are what `json` itself uses; where they are missing or differ, it is taken instead.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ("read_json", "write_json")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class _Rules:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)


def _fast() -> tuple[Callable[[str], object], Callable[[Any], str]]:
    import _json  # pyright: ignore[reportMissingModuleSource]

    scan: Any = _json.make_scanner(_Rules())  # pyright: ignore[reportArgumentType]
    encode: Any = _json.make_encoder(None, _no_such, _json.encode_basestring_ascii, None, ":", ",", False, False, False)  # pyright: ignore[reportArgumentType]

    def read(text: str) -> object:
        text = text.strip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except StopIteration:
            raise ValueError("no JSON value") from None
        if end != len(text):
            raise ValueError("more than one JSON value")
        return value

    def write(value: Any) -> str:
        return "".join(encode(value, 0))

    if read(write({"a": [1, 1.5, None, True, "\udcff"]})) != {"a": [1, 1.5, None, True, "\udcff"]}:
        raise ImportError("another JSON than expected")
    return read, write


def _slow() -> tuple[Callable[[str], object], Callable[[Any], str]]:
    import json

    def read(text: str) -> object:
        return json.loads(text, parse_constant=_refuse)

    def write(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    return read, write


def _no_such(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


try:
    read_json, write_json = _fast()
except (ImportError, AttributeError, TypeError, ValueError):
    read_json, write_json = _slow()
