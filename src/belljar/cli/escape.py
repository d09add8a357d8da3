"""The way out of a shell that hangs: Enter, tilde, dot, as in ssh."""

__all__ = ("Escape",)


class Escape:
    """Watches what is typed. A tilde after Enter is held back until the next key tells what it is."""

    def __init__(self) -> None:
        self._at_start = True
        self._held = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether to leave. Only single keys count: a paste is passed on as it is."""
        if self._held:
            self._held = False
            if data[:1] == b".":
                return b"", True
            data = data[1:] if data[:1] == b"~" else data
            data = b"~" + data
        elif self._at_start and data == b"~":
            self._held = True
            return b"", False
        self._at_start = data[-1:] in (b"\r", b"\n")
        return data, False
