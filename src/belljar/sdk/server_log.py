"""What the embedded server says while it starts, as it comes."""

import json
from pathlib import Path
from typing import Any, cast

__all__ = ("LogTail",)

_LARGEST = 16 << 20
_LAST_LINES = 15
_LAST_BYTES = 16 << 10


class LogTail:
    """Reads what is appended from now on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = self._size()
        self._rest = b""

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def rotate(self) -> None:
        """Starts a new file when this one has grown large; one old one is kept."""
        if self._size() > _LARGEST:
            self.path.replace(self.path.with_name(self.path.name + ".1"))
        self._offset = self._size()

    def lines(self) -> list[str]:
        """The new lines for people."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                data = file.read(1 << 20)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [text for line in whole if (text := _for_people(line))]

    def last(self) -> str:
        """The newest lines, for the message about a failure."""
        try:
            data = self.path.read_bytes()[-_LAST_BYTES:]
        except FileNotFoundError:
            return "(it wrote nothing)"
        lines = [line.decode(errors="replace") for line in data.split(b"\n") if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) or "(it wrote nothing)"


def _for_people(line: bytes) -> str:
    """Lines of set-up are plain text; those of the log are JSON, of which only warnings and worse are news."""
    text = line.decode(errors="replace").strip()
    if not text.startswith("{"):
        return text
    try:
        entry: Any = json.loads(text)
    except ValueError:
        return text
    if not isinstance(entry, dict):
        return text
    said = cast("dict[str, Any]", entry)
    if said.get("level") in ("warning", "error", "critical"):
        return f"{said['level']}: {said.get('event', '')}"
    return ""
