"""What a step printed and showed, as the agent is to see it: bounded, in the order it came, without colours."""

import io
import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import belljar

__all__ = ("DEFAULT_LENGTH", "Printout", "error_text", "plain", "shown_image", "shown_text", "traceback_of")

DEFAULT_LENGTH = 50_000
"""Characters of output that an agent gets to see; smolagents' own default."""
_KEPT = 16 << 20
"""Characters of output that are kept to be written into a file."""
_MAX_PIXELS = 100_000_000
_MAX_ERROR = 20_000
_BRIDGE = re.compile(r'^ *File "?<belljar \w+>"?.*\n(?: {4,}.*\n)*', re.MULTILINE)
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_].*?(?:\x1b\\|$)|[ -/]*[0-~])", re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def plain(text: str) -> str:
    """Without escape sequences, control characters and what no terminal or prompt can encode."""
    return _CONTROL.sub("", _ANSI.sub("", text))


class Printout:
    """Both streams as they come. `tell` hears each piece; it is what streams them to a person."""

    def __init__(self, tell: Callable[[str], Any] | None = None) -> None:
        self._pieces: deque[str] = deque()
        self._kept = 0
        self._tell = tell
        self.size = 0

    def add(self, text: str) -> None:
        self.size += len(text)
        self._kept += len(text)
        self._pieces.append(text)
        while self._kept > _KEPT and len(self._pieces) > 1:
            self._kept -= len(self._pieces.popleft())
        if self._tell is not None:
            self._tell(text)

    @property
    def text(self) -> str:
        """The newest 16 Mi characters of it."""
        return plain("".join(self._pieces))

    def shortened(self, text: str, length: int, where: Callable[[str], str | None]) -> str:
        """`text`, or its head and tail with a note between them; `where` stores the whole and says under which path."""
        if len(text) <= length and self._kept == self.size:
            return text
        path = where(text)
        lost = self.size - self._kept
        note = f"{self.size:,} characters were printed; {length:,} of them are shown here"
        note += f", the {'newest ' if lost else ''}{len(text):,} are in the file {path} of the sandbox" if path else ""
        half = max(length // 2, 1)
        return f"{text[:half]}\n..._{note}_...\n{text[-half:]}"


def shown_image(results: "Sequence[belljar.Result]") -> Any:
    """The last image that was shown, as a PIL image; None if there is none (or it is no image at all)."""
    from PIL import Image  # smolagents brings it, but only who shows images waits for it

    for result in reversed(results):
        for data, kind in ((result.png, "PNG"), (result.jpeg, "JPEG")):
            if data is None:
                continue
            try:
                image = Image.open(io.BytesIO(data), formats=[kind])
                if image.width * image.height <= _MAX_PIXELS:
                    image.load()
                    return image
            except Exception:  # noqa: BLE001 (hostile bytes: a decoder may raise anything)
                continue
    return None


def shown_text(results: "Sequence[belljar.Result]") -> str | None:
    """The last expression's value as text; else None."""
    for result in reversed(results):
        if result.main:
            forms = (result.text, result.markdown, result.html, result.latex, result.svg)
            return plain(next((form for form in forms if form is not None), ""))
    return None


def traceback_of(error: "belljar.ExecutionError") -> str:
    """What the code raised, without the lines of the functions that stand for tools, and bounded."""
    text = plain(error.traceback)
    if error.name not in text:
        text = f"{text}\n{error.name}: {plain(error.value)}".lstrip()
    text = _BRIDGE.sub("", text)
    return text if len(text) <= _MAX_ERROR else f"{text[:2000]}\n...\n{text[-_MAX_ERROR:]}"


def error_text(execution: "belljar.Execution", limit: float | None) -> str:
    """What went wrong in a step, as the agent is to read it. `limit`: seconds of a step."""
    error = execution.error
    if error is None:
        return ""
    if error.name == "KernelDied":
        return (
            f"The Python process of the sandbox ended ({plain(error.value)[:500]}). Its variables and imports are gone; "
            "the next step gets a new one with the tools and the given variables."
        )
    if execution.status == "interrupted" and error.name == "TimeoutError":
        return (
            f"TimeoutError: the code ran longer than the limit of {limit:g} s and was interrupted. "
            f"What it had computed is kept.\n{traceback_of(error)}"
        )
    return traceback_of(error)
