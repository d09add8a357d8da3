"""Arguments from the sandbox, checked against what a tool says it takes before the tool sees them."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, cast

__all__ = ("BadArguments", "checked")


class BadArguments(TypeError):
    """Of another kind or name than the tool takes."""


def checked(tool: Any, args: list[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments as the tool is to be called with. Raises BadArguments.

    Whether one is missing, the tool itself says: its inputs do not tell for all kinds of tools.
    """
    inputs = getattr(tool, "inputs", None)
    if not isinstance(inputs, Mapping):
        _bind(tool, args, kwargs)
        return args, dict(kwargs)
    schema = cast(Mapping[str, Any], inputs)
    if len(args) == 1 and not kwargs and isinstance(args[0], dict) and _is_call(cast(dict[Any, Any], args[0]), schema):
        return [], _named(schema, cast(dict[str, Any], args[0]))
    if len(args) > len(schema):
        raise BadArguments(f"takes {len(schema)} arguments but {len(args)} were given")
    for name, value in zip(schema, args, strict=False):
        if name in kwargs:
            raise BadArguments(f"got two values for the argument {name!r}")
        _check(name, value, schema[name])
    return args, _named(schema, kwargs)


def _named(schema: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in kwargs.items():
        if name not in schema:
            raise BadArguments(f"takes no argument {name[:80]!r}; it has {', '.join(schema) or 'none'}")
        _check(name, value, schema[name])
    return dict(kwargs)


def _is_call(value: dict[Any, Any], schema: Mapping[str, Any]) -> bool:
    """smolagents takes one dict for all arguments when its keys are their names."""
    return bool(value) and all(key in schema for key in value)


def _check(name: str, value: Any, said: Any) -> None:
    about: Mapping[str, Any] = cast(Mapping[str, Any], said) if isinstance(said, Mapping) else {}
    kinds = about.get("type", "any")
    names: list[Any] = cast(list[Any], kinds) if isinstance(kinds, list) else [kinds]
    if (value is None and (about.get("nullable") or "null" in names)) or any(_fits(value, kind) for kind in names):
        return
    raise BadArguments(f"the argument {name!r} is {' or '.join(map(str, names))}, not {type(value).__name__}")


def _fits(value: Any, kind: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str | PurePath)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            return not isinstance(value, str | bytes | bool | int | float | dict) and value is not None
        case "image" | "audio":
            return not isinstance(value, bool | int | float | dict) and value is not None
        case "object":
            return not isinstance(value, bool | int | float) and value is not None
        case _:
            return True


def _bind(tool: Callable[..., Any], args: list[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(tool)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise BadArguments(str(error)) from None
