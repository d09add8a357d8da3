"""Takes an operation's arguments apart. Raises Refused for a wrong type, a missing one, or one out of range."""

from __future__ import annotations

from belljar_agent.api import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar_agent.api import Args

__all__ = ("encoded", "flag", "number", "object_of", "optional_number", "optional_text", "strings", "text", "variables")

MAX_NUMBER = 1 << 62


def text(args: Args, name: str) -> str:
    value = args.get(name)
    if not isinstance(value, str) or not value or "\0" in value:
        raise Refused("invalid_argument", f"{name} must be text that is not empty and has no NUL")
    return value


def optional_text(args: Args, name: str) -> str | None:
    return None if args.get(name) is None else text(args, name)


def number(args: Args, name: str, default: int | None = None, *, least: int = 0, most: int = MAX_NUMBER) -> int:
    """A whole number from `least` to `most`; without a `default` it must be there."""
    value = args.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused("invalid_argument", f"{name} must be a whole number between {least} and {most}")
    return value


def optional_number(args: Args, name: str, *, least: int = 0, most: int = MAX_NUMBER) -> int | None:
    return None if args.get(name) is None else number(args, name, least=least, most=most)


def flag(args: Args, name: str, default: bool = False) -> bool:
    value = args.get(name, default)
    if not isinstance(value, bool):
        raise Refused("invalid_argument", f"{name} must be true or false")
    return value


def object_of(args: Args, name: str) -> Args | None:
    value: object = args.get(name)
    if value is not None and not isinstance(value, dict):
        raise Refused("invalid_argument", f"{name} must be an object")
    return args.get(name)


def strings(args: Args, name: str) -> list[str]:
    value: object = args.get(name)
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in args[name]):
        raise Refused("invalid_argument", f"{name} must be a list of texts without NUL")
    return args[name]


def variables(args: Args, name: str) -> dict[str, str]:
    """Of an environment."""
    found = object_of(args, name) or {}
    for key, value in found.items():
        if not key or "=" in key or "\0" in key or not isinstance(value, str) or "\0" in value:
            raise Refused("invalid_argument", f"{name} must hold texts without NUL under names without =")
    return found


def encoded(words: str) -> bytes:
    """As the operating system knows it. Raises Refused for text that stands for no bytes."""
    try:
        return words.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Refused("invalid_argument", "text with half a surrogate pair") from None
