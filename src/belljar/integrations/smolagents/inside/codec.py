# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportMissingTypeStubs=false, reportMissingModuleSource=false
"""Values as JSON with tags and back: what crosses the border between agent code and host. Never pickle, never eval.

A plain value stands for itself: None, bool, int below 2**63, float, short str, list, and dict whose keys are str without a
leading ``$``. All else is ``{"$t": tag, ...}``. Bytes are base64; big ones, and long texts, are a file of the sandbox:
``{"f": name}``. What cannot travel stays where it is; a handle travels and comes back as the same object.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import json
import pathlib
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any

__all__ = (
    "CodecError",
    "Decoder",
    "Encoder",
    "Handles",
    "Limits",
    "Record",
    "RemoteObject",
    "reader",
    "writer",
)

INLINE = 64 << 10
"""Bytes of a blob that travel inside of the JSON, and characters of a string."""
INLINE_TEXT = 1 << 20
"""Characters of the JSON itself; a longer one travels as a file."""
_MAX_HANDLES = 10_000
_BIG_INT = 1 << 63


class CodecError(ValueError):
    """What was said is none of this codec, or beyond its limits."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one message. `text` and `bytes` in bytes, `seconds` for reading it."""

    text: int = 32 << 20
    bytes: int = 256 << 20
    nodes: int = 4_000_000
    depth: int = 100
    seconds: float = 20.0


class Record(dict[str, Any]):
    """A dataclass of the other side: a dict whose fields are attributes too. `record_name` is its class's name."""

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        object.__setattr__(self, "record_name", name)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.items())
        return f"{object.__getattribute__(self, 'record_name')}({inner})"


class RemoteObject:
    """An object that stayed on the other side. Give it back (to a tool, as a result) and it is that object again."""

    __slots__ = ("key", "kind", "text")

    def __init__(self, key: str, kind: str, text: str) -> None:
        self.key = key
        self.kind = kind
        self.text = text

    def __repr__(self) -> str:
        return f"<{self.kind} that stayed on the other side: {self.text}>"

    def __str__(self) -> str:
        return self.text


class Handles:
    """Objects of this side that the other knows by a key. `side` is ``host`` or ``inside``."""

    def __init__(self, side: str) -> None:
        self.side = side
        self._objects: dict[str, Any] = {}
        self._keys: dict[int, str] = {}

    def copy(self) -> Handles:
        """The same objects by the same keys; what is kept later is not shared."""
        copy = Handles(self.side)
        copy._objects, copy._keys = dict(self._objects), dict(self._keys)
        return copy

    def keep(self, value: Any) -> dict[str, Any]:
        """Raises CodecError when too many are kept."""
        key = self._keys.get(id(value))
        if key is None:
            if len(self._objects) >= _MAX_HANDLES:
                raise CodecError(f"more than {_MAX_HANDLES} objects cannot travel and would have to be kept")
            key = secrets.token_hex(8)
            self._objects[key] = value
            self._keys[id(value)] = key
        return {"$t": self.side, "v": key, "n": type(value).__name__[:200], "r": _short(value)}

    def find(self, key: str) -> Any:
        try:
            return self._objects[key]
        except KeyError:
            raise CodecError("no such object is kept here") from None


Writer = Callable[["Encoder", Any], Any]
Reader = Callable[["Decoder", dict[str, Any]], Any]

_writers: dict[str, Writer] = {}
_readers: dict[str, Reader] = {}


def writer(*packages: str) -> Callable[[Writer], Writer]:
    """Registers what writes values whose class comes from one of these packages; it returns None for those it does not know."""

    def add(function: Writer) -> Writer:
        _writers.update(dict.fromkeys(packages, function))
        return function

    return add


def reader(*tags: str) -> Callable[[Reader], Reader]:
    def add(function: Reader) -> Reader:
        _readers.update(dict.fromkeys(tags, function))
        return function

    return add


class Encoder:
    """Writes one message. `peer`: the optional packages of the other side. `spill` stores bytes as a file and names it."""

    def __init__(
        self,
        handles: Handles,
        peer: frozenset[str],
        spill: Callable[[bytes], str],
        limits: Limits,
        before: Callable[[Any], Any] | None = None,
    ) -> None:
        self.peer = peer
        self._handles = handles
        self._spill = spill
        self._limits = limits
        self._before = before
        self._open: list[int] = []
        self._bytes = 0

    def dumps(self, value: Any) -> str:
        """Raises CodecError for what is too large."""
        text = json.dumps(self.tree(value))
        if len(text) <= INLINE_TEXT:
            return text
        if len(text) > self._limits.text:
            raise CodecError(f"the value has more than {self._limits.text >> 20} MiB of text: put it into a file")
        return json.dumps({"$f": self._spill(text.encode())})

    def tree(self, value: Any) -> Any:
        if self._before is not None:
            value = self._before(value)
        plain = type(value)
        if value is None or plain is bool or plain is float:
            return value
        if plain is int:
            return value if -_BIG_INT < value < _BIG_INT else {"$t": "int", "v": hex(value)}
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if id(value) in self._open or len(self._open) >= self._limits.depth:
            return self.kept(value)
        self._open.append(id(value))
        try:
            node = self._object(value)
        except CodecError:
            raise
        except Exception:  # noqa: BLE001 (the value's own code, or a library that cannot write this one: it stays)
            node = None
        finally:
            self._open.pop()
        return self.kept(value) if node is None else node

    def blob(self, data: bytes) -> Any:
        """Bytes as base64, or as a file's name. Raises CodecError beyond the limit."""
        self._bytes += len(data)
        if self._bytes > self._limits.bytes:
            raise CodecError(
                f"the value has more than {self._limits.bytes >> 20} MiB: put it into a file of the sandbox"
            )
        if len(data) <= INLINE:
            return base64.b64encode(data).decode()
        return {"f": self._spill(data)}

    def kept(self, value: Any) -> dict[str, Any]:
        if isinstance(value, RemoteObject):
            other = "inside" if self._handles.side == "host" else "host"
            return {"$t": other, "v": value.key}
        return self._handles.keep(value)

    def _text(self, value: str) -> Any:
        if len(value) <= INLINE:
            return value
        return {"$t": "str", "v": self.blob(value.encode("utf-8", "surrogatepass"))}

    def _object(self, value: Any) -> Any:
        for base in type(value).__mro__[:-1]:
            write = _writers.get(base.__module__.partition(".")[0])
            if write is not None:
                node = write(self, value)
                if node is not None:
                    return node
                break
        node = self._container(value)
        return self._scalar(value) if node is None else node

    def _container(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.tree(item) for item in value]
        if isinstance(value, dict):
            return self._dict(value)
        for kind, tag in ((tuple, "tuple"), (set, "set"), (frozenset, "frozenset")):
            if isinstance(value, kind):
                return {"$t": tag, "v": [self.tree(item) for item in value]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            fields = {name: getattr(value, name) for name in names if hasattr(value, name)}
            return {"$t": "record", "n": type(value).__name__, "v": self._pairs(fields)}
        return None

    def _dict(self, value: dict[Any, Any]) -> Any:
        if isinstance(value, Record):
            return {"$t": "record", "n": object.__getattribute__(value, "record_name"), "v": self._pairs(value)}
        if all(type(key) is str and not key.startswith("$") and len(key) <= INLINE for key in value):
            return {key: self.tree(item) for key, item in value.items()}
        return {"$t": "dict", "v": self._pairs(value)}

    def _pairs(self, value: dict[Any, Any]) -> list[Any]:
        return [[self.tree(key), self.tree(item)] for key, item in value.items()]

    def _scalar(self, value: Any) -> Any:
        if isinstance(value, (bool, int, float)):
            return self.tree(next(kind(value) for kind in (bool, int, float) if isinstance(value, kind)))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return {"$t": "bytes", "v": self.blob(bytes(value))}
        if isinstance(value, complex):
            return {"$t": "complex", "v": [value.real, value.imag]}
        if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
            kinds = ((datetime.datetime, "datetime"), (datetime.date, "date"), (datetime.time, "time"))
            return {"$t": next(tag for kind, tag in kinds if isinstance(value, kind)), "v": value.isoformat()}
        if isinstance(value, datetime.timedelta):
            return {"$t": "timedelta", "v": [value.days, value.seconds, value.microseconds]}
        if isinstance(value, range):
            return {"$t": "range", "v": [self.tree(part) for part in (value.start, value.stop, value.step)]}
        for kind, tag in ((decimal.Decimal, "Decimal"), (pathlib.PurePath, "Path"), (uuid.UUID, "UUID")):
            if isinstance(value, kind):
                return {"$t": tag, "v": str(value)}
        return None


class Decoder:
    """Reads one message, whoever wrote it. `fetch(name, most)` gives a file's bytes, at most `most` of them."""

    def __init__(self, handles: Handles, fetch: Callable[[str, int], bytes], limits: Limits) -> None:
        self._handles = handles
        self._fetch = fetch
        self._limits = limits
        self._left = limits.bytes
        self._until = time.monotonic() + limits.seconds
        self._surrogates = False

    def loads(self, text: str) -> Any:
        """Raises CodecError for all that is wrong with it, whatever that is."""
        try:
            node = self._json(text)
            if isinstance(node, dict) and set(node) == {"$f"}:
                node = self._json(self._file(node["$f"], self._limits.text).decode())
            return self.tree(node, 0)
        except CodecError:
            raise
        except RecursionError:
            raise CodecError("a value that is nested too deeply") from None
        except Exception as error:  # noqa: BLE001 (whatever a reader of hostile bytes raises, it means this)
            raise CodecError(f"no value of the codec: {type(error).__name__}: {error}"[:500]) from None

    def tree(self, node: Any, depth: int = 0) -> Any:
        if depth > self._limits.depth + 8:
            raise CodecError("a value that is nested too deeply")
        if isinstance(node, str):
            return node.encode("utf-8", "replace").decode() if self._surrogates else node
        if isinstance(node, list):
            return [self.tree(item, depth + 1) for item in node]
        if not isinstance(node, dict):
            return node
        tag = node.get("$t")
        if tag is None:
            return {self._key(key): self.tree(item, depth + 1) for key, item in node.items()}
        read = _readers.get(tag) if isinstance(tag, str) else None
        if read is not None:
            return read(self, node)
        return self._tagged(tag, node, depth)

    def blob(self, node: Any) -> bytes:
        if isinstance(node, str):
            data = base64.b64decode(node, validate=True)
            self._left -= len(data)
            if self._left < 0:
                raise CodecError("a value that is too large")
            return data
        if not isinstance(node, dict) or set(node) != {"f"}:
            raise CodecError("no bytes of the codec")
        data = self._file(node["f"], self._left)
        self._left -= len(data)
        return data

    def items(self, node: Any, depth: int = 0) -> list[Any]:
        if not isinstance(node, list):
            raise CodecError("no list of the codec")
        return [self.tree(item, depth + 1) for item in node]

    def text(self, node: Any) -> str:
        if not isinstance(node, str):
            raise CodecError("no text of the codec")
        return self.tree(node)

    def _json(self, text: str) -> Any:
        if len(text) > self._limits.text:
            raise CodecError(f"a value of more than {self._limits.text >> 20} MiB of text")
        if text.count(",") + text.count("[") + text.count("{") > self._limits.nodes:
            raise CodecError(f"a value of more than {self._limits.nodes} parts")
        self._surrogates = self._surrogates or "\\ud" in text.lower()
        return json.loads(text)

    def _file(self, name: Any, most: int) -> bytes:
        if not (isinstance(name, str) and len(name) == 32 and all(c in "0123456789abcdef" for c in name)):
            raise CodecError("no file of the codec")
        return self._fetch(name, most)

    def _key(self, key: str) -> str:
        if key.startswith("$"):
            raise CodecError("no key of the codec")
        return self.tree(key)

    def _tagged(self, tag: Any, node: dict[str, Any], depth: int) -> Any:
        content = node.get("v")
        if tag == "tuple":
            return tuple(self.items(content, depth))
        if tag in ("set", "frozenset"):
            found = self._hashed([[item, None] for item in self.items(content, depth)])
            return frozenset(found) if tag == "frozenset" else set(found)
        if tag in ("dict", "record"):
            pairs = [self.items(pair, depth + 1) for pair in self._list(content)]
            if any(len(pair) != 2 for pair in pairs):
                raise CodecError("no dict of the codec")
            found = self._hashed(pairs)
            if tag == "dict":
                return found
            return Record(self.text(node.get("n"))[:200], {str(key): item for key, item in found.items()})
        if tag == self._handles.side:
            return self._handles.find(self.text(content))
        if tag in ("host", "inside"):
            return RemoteObject(
                self.text(content)[:64], self.text(node.get("n", ""))[:200], self.text(node.get("r", ""))[:500]
            )
        return self._plain(tag, content)

    def _plain(self, tag: Any, content: Any) -> Any:
        if tag == "bytes":
            return self.blob(content)
        if tag == "str":
            return self.blob(content).decode("utf-8", "replace")
        if tag == "complex":
            real, imag = self._list(content)
            return complex(float(real), float(imag))
        if tag == "timedelta":
            days, seconds, microseconds = self._list(content)
            return datetime.timedelta(int(days), int(seconds), int(microseconds))
        if tag == "range":
            return range(*[int(part) for part in self.items(content)][:3])
        simple: dict[str, Callable[[str], Any]] = {
            "int": lambda text: int(text, 16),
            "datetime": datetime.datetime.fromisoformat,
            "date": datetime.date.fromisoformat,
            "time": datetime.time.fromisoformat,
            "Decimal": decimal.Decimal,
            "UUID": uuid.UUID,
            # A path of the sandbox is none of the host: the host gets one that opens nothing.
            "Path": pathlib.PurePosixPath if self._handles.side == "host" else pathlib.Path,
        }
        make = simple.get(tag) if isinstance(tag, str) else None
        if make is None:
            raise CodecError(f"no tag of the codec: {str(tag)[:40]!r}")
        return make(self.text(content))

    def _hashed(self, pairs: list[Any]) -> dict[Any, Any]:
        """Keys may have been chosen to collide, which makes a table of n keys cost n * n: hence the look at the clock."""
        found: dict[Any, Any] = {}
        for number, pair in enumerate(pairs):
            if number % 256 == 0 and time.monotonic() > self._until:
                raise CodecError("a value that takes too long to read")
            found[pair[0]] = pair[1]
        return found

    def _list(self, content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise CodecError("no list of the codec")
        return content


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (the object's own code)
        text = object.__repr__(value)
    return text if len(text) <= 500 else text[:497] + "..."
