"""The host's end of the codec: values to and from one kernel, big ones through files of its sandbox."""

import secrets
from collections.abc import Callable
from copy import copy
from importlib.util import find_spec
from typing import Any

import belljar
from belljar.integrations.smolagents.inside import arrays, frames
from belljar.integrations.smolagents.inside.codec import CodecError, Decoder, Encoder, Handles, Limits

__all__ = ("PACKAGES", "PEER", "Exchange")

PACKAGES = ("numpy", "pandas", "PIL", "torch")
"""Optional ones that the codec knows."""
PEER = [name for name in PACKAGES if find_spec(name) is not None]
"""Optional packages that this side has."""
_LOADED = (arrays, frames)
"""Loading them registers what they read and write."""


class Exchange:
    """One per kernel: `folder` is where its files lie inside, `has` names the optional packages there."""

    def __init__(self, sandbox: "belljar.Sandbox", folder: str, has: frozenset[str], limits: Limits) -> None:
        self.has = has
        self._sandbox = sandbox
        self._folder = sandbox.path(folder)
        self._limits = limits
        self._handles = Handles("host")

    def moved(self, sandbox: "belljar.Sandbox") -> "Exchange":
        """For a sandbox that begins as this one's is. It knows the same objects, and from now on keeps its own."""
        moved = copy(self)
        moved._sandbox = sandbox
        moved._folder = sandbox.path(self._folder)
        moved._handles = self._handles.copy()
        return moved

    def encode(self, value: Any, before: Callable[[Any], Any] | None = None) -> str:
        """`before` sees each value, and says what is sent for it. Raises CodecError for what is too large."""
        return Encoder(self._handles, self.has, self._spill, self._limits, before).dumps(value)

    def decode(self, text: str) -> Any:
        """Raises CodecError for all that is wrong with it."""
        return Decoder(self._handles, self._fetch, self._limits).loads(text)

    def _spill(self, data: bytes) -> str:
        name = secrets.token_hex(16)
        (self._folder / name).write_bytes(data, mode=0o644)
        return name

    def _fetch(self, name: str, most: int) -> bytes:
        path = self._folder / name
        try:
            data = path.read_bytes(length=most + 1)
            path.unlink(missing_ok=True)
        except belljar.Error as error:
            raise CodecError(f"a file of the value cannot be read: {error}") from None
        if len(data) > most:
            raise CodecError("a value that is too large")
        return data
