"""An exception as text, whatever it is: hostile ones cost their own words, never the kernel."""

from __future__ import annotations

import re
import traceback
from typing import TYPE_CHECKING, Any, cast

from belljar_kernel.limits import MAX_TEXT, clip

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("CELL", "Failure", "describe", "words_of")

CELL = re.compile(r"<ipython-input-(\d+)-[0-9a-f]+>")
"""The file name of a cell's code."""
_CHAIN = 8
_GROUP = 10
_DEPTH = 4
_FRAMES = 100
"""Frames shown at each end of a deep stack; the standard library then folds those that repeat."""
_NAME = type.__dict__["__name__"].__get__
_MODULE = type.__dict__["__module__"].__get__
_LINES = 2000
_CELL_LINE = re.compile(r'File "<ipython-input-(\d+)-[0-9a-f]+>"')
_HERE = __file__.rpartition("/")[0] + "/"


class Failure:
    """Name and words of it as the code's own `type` and `str` say, and a traceback from the cell on."""

    __slots__ = ("name", "traceback", "value")

    def __init__(self, name: str, value: str, traceback: str) -> None:
        self.name, self.value, self.traceback = name, value, traceback


def describe(error: BaseException) -> Failure:
    """Runs code of the exception's class: raises nothing but what an interrupt raises."""
    name, value = _name(error), words_of(error)
    try:
        text = "".join(_chain(error, value, 0))
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001
        text = f"{_full_name(error)}: {clip(value, _LINES)}\n"
    return Failure(name, value, clip(text))


def words_of(error: BaseException) -> str:
    try:
        text = str.__getitem__(str(error), slice(None))  # a plain str, whatever class it was
        return clip(CELL.sub(r"<cell \1>", text) if isinstance(error, SyntaxError) else text)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001
        return f"<{_name(error)} whose text cannot be made>"


def _chain(error: BaseException, value: str, depth: int) -> list[str]:
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    link: BaseException | None = error
    said = ""
    while link is not None and id(link) not in seen and len(links) < _CHAIN:
        links.append((link, said))
        seen.add(id(link))
        if link.__cause__ is not None:
            link, said = link.__cause__, "\nThe above exception was the direct cause of the following exception:\n\n"
        elif link.__context__ is not None and not link.__suppress_context__:
            link, said = link.__context__, "\nDuring handling of the above exception, another exception occurred:\n\n"
        else:
            link = None
    lines: list[str] = ["[earlier exceptions left out]\n\n"] if link is not None else []
    for one, joint in reversed(links):
        lines += _one(one, value if one is error else words_of(one), depth)
        if joint:
            lines.append(joint)
    return lines


def _one(error: BaseException, value: str, depth: int) -> list[str]:
    lines = _stack(error.__traceback__)
    if isinstance(error, SyntaxError) and type(value) is str:
        lines += [CELL.sub(r"<cell \1>", line) for line in _syntax(error)]
    else:
        lines.append(f"{_full_name(error)}: {value}\n" if value else f"{_full_name(error)}\n")
    notes: Any = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        kept = cast("list[Any]", notes)[:_GROUP]
        lines += [f"{clip(note, _LINES)}\n" for note in kept if type(note) is str]
    found: Any = getattr(error, "exceptions", None)
    if type(found) is tuple and depth < _DEPTH:
        inner = cast("tuple[Any, ...]", found)
        for number, part in enumerate(inner[:_GROUP], 1):
            if isinstance(part, BaseException):
                lines.append(f"  +---------------- {number} ----------------\n")
                text = "".join(_chain(part, words_of(part), depth + 1))
                lines += [f"  | {line}\n" for line in text.splitlines()]
        if len(inner) > _GROUP:
            lines.append(f"  +---------------- and {len(inner) - _GROUP} more\n")
    return lines


def _stack(trace: TracebackType | None) -> list[str]:
    """From the cell's first frame on; what is above it is the kernel's own."""
    begin, length, found = trace, 0, None
    while trace is not None:
        if found is None and CELL.fullmatch(trace.tb_frame.f_code.co_filename):
            found, length = trace, 0
        length += 1
        trace = trace.tb_next
    if found is None and begin is not None:
        found, length = _outside_kernel(begin)
    if found is None:
        return []
    if length <= 2 * _FRAMES:
        lines = _lines(traceback.extract_tb(found))
    else:
        note = f"  [{length - 2 * _FRAMES} frames left out]\n"
        lines = [
            *_lines(traceback.extract_tb(found, _FRAMES)),
            note,
            *_lines(traceback.extract_tb(found, -_FRAMES)),
        ]
    return ["Traceback (most recent call last):\n", *lines] if lines else []


def _outside_kernel(trace: TracebackType) -> tuple[TracebackType | None, int]:
    """Of an exception that comes from no cell (a script's): all but the frames of IPython at its beginning."""
    found: TracebackType | None = trace
    while found is not None and _is_ours(found.tb_frame.f_globals.get("__name__")):
        found = found.tb_next
    length, rest = 0, found
    while rest is not None:
        length, rest = length + 1, rest.tb_next
    return found, length


def _is_ours(name: object) -> bool:
    return type(name) is str and name.startswith(("IPython.", "belljar_kernel."))


def _lines(summary: traceback.StackSummary) -> list[str]:
    # What the kernel does between the code and its error (input, exit) is not the code's.
    shown = traceback.StackSummary.from_list([frame for frame in summary if not frame.filename.startswith(_HERE)])
    return [_CELL_LINE.sub(r'File "<cell \1>"', line, count=1) for line in shown.format()]


def _syntax(error: SyntaxError) -> list[str]:
    bare = SyntaxError(*error.args[:1])
    bare.msg, bare.filename, bare.lineno, bare.offset, bare.text = (
        error.msg,
        error.filename,
        error.lineno,
        error.offset,
        error.text,
    )
    lines = traceback.format_exception_only(SyntaxError, bare)
    name = _full_name(error)
    return [*lines[:-1], lines[-1].replace("SyntaxError", name, 1)]


def _name(error: BaseException) -> str:
    try:
        name = str(_NAME(type(error)))
        # How Python 3.13 calls a syntax error at the end of the code.
        return "SyntaxError" if name == "_IncompleteInputError" else name
    except Exception:  # noqa: BLE001
        return "Exception"


def _full_name(error: BaseException) -> str:
    """As Python writes it at the end of a traceback."""
    try:
        module = _MODULE(type(error))
    except Exception:  # noqa: BLE001
        module = None
    plain = type(module) is not str or module in ("builtins", "__main__")
    return _name(error) if plain else f"{module}.{_name(error)}"


assert _LINES < MAX_TEXT
