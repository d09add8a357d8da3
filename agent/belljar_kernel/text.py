"""`text/plain` of anything in bounded size, and where that can be had in bounded time.

IPython's printer writes to a stream that refuses when it is full, so a deep structure is not made whole only to be cut. What one
call of C would make whole (a long string, a huge number) is measured before.
"""
# pyright: basic, reportMissingImports=false

from __future__ import annotations

import contextlib
import sys
from array import array
from typing import Any

from IPython.core.formatters import PlainTextFormatter
from IPython.lib import pretty

from belljar_kernel.failures import describe
from belljar_kernel.limits import MAX_TEXT, clip

__all__ = ("PlainText", "short_tables")

_BITS = 400_000
"""Of a whole number: 120,000 digits, which Python 3.9 takes 0.3 s for."""
_ROWS = 1000
_ITEMS = 100_000


class _Full(BaseException):
    """Not an Exception: code's `__repr__` that catches those would go on for ever."""


class _Bounded:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.size = 0

    def write(self, text: str) -> int:
        self.parts.append(text[: MAX_TEXT - self.size + 1])
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise _Full
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""


class PlainText(PlainTextFormatter):
    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.type_printers.update(dict.fromkeys((str, bytes, bytearray), _text))
        self.type_printers.update({array: _array, int: _whole})

    def __call__(self, obj: Any) -> str | None:
        stream = _Bounded()
        try:
            printer = pretty.RepresentationPrinter(
                stream,
                self.verbose,
                self.max_width,
                self.newline,
                max_seq_length=self.max_seq_length or _ROWS,
                singleton_pprinters=self.singleton_printers,
                type_pprinters=self.type_printers,
                deferred_pprinters=self.deferred_printers,
            )
            printer.pretty(obj)
            printer.flush()
        except _Full:
            text = "".join(stream.parts)
            note = f"\n[cut: the first {MAX_TEXT >> 20} Mi characters]"
            return text[: MAX_TEXT - len(note)] + note
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001
            failure = describe(error)
            with contextlib.suppress(ValueError, OSError, AttributeError):
                sys.stderr.write(failure.traceback)
            return f"<{_class(obj)} whose text cannot be made: {failure.name}>"
        return "".join(stream.parts)


def _text(obj: Any, p: Any, cycle: bool) -> None:
    if len(obj) <= MAX_TEXT:
        pretty._repr_pprint(obj, p, cycle)
    else:
        p.text(clip(repr(obj[:MAX_TEXT]), whole=len(obj)))


def _array(obj: Any, p: Any, cycle: bool) -> None:
    more = len(obj) - _ROWS
    p.text(repr(obj) if more <= 0 else repr(obj[:_ROWS]).rstrip("])") + f", ... and {more} more])")


def _whole(obj: Any, p: Any, cycle: bool) -> None:
    bits = int.bit_length(obj)
    if bits <= _BITS:
        try:
            p.text(repr(obj))
            return
        except ValueError:  # Python's own limit of digits
            pass
    p.text(f"<a whole number of about {bits * 1233 >> 12} digits>")


@contextlib.contextmanager
def short_tables() -> Any:
    """Options of pandas and numpy that would have a million rows formatted, most of which would be cut again."""
    with contextlib.ExitStack() as options:
        with contextlib.suppress(Exception):
            numpy = sys.modules.get("numpy")
            if numpy is not None and numpy.get_printoptions()["threshold"] > _ITEMS:
                options.enter_context(numpy.printoptions(threshold=_ITEMS))
        with contextlib.suppress(Exception):
            pandas = sys.modules.get("pandas")
            if pandas is not None:
                rows = pandas.get_option("display.max_rows")
                if rows is None or rows > _ROWS:
                    options.enter_context(pandas.option_context("display.max_rows", _ROWS))
        yield


def _class(obj: object) -> str:
    return type.__dict__["__name__"].__get__(type(obj))
