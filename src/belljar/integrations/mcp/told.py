"""What a long call says meanwhile, to a client that asked for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from belljar.integrations.mcp.results import clean

__all__ = ("Report", "Told")

Report = Callable[[float, str | None], Awaitable[None]]
"""Takes the seconds so far and a line of text."""

_FIRST_SECONDS = 1.0
_EVERY_SECONDS = 2.0


class Told:
    """The line that is told next. Whatever happens in the call, a client hears at most once in two seconds."""

    def __init__(self) -> None:
        self._speak: Callable[[], str] = str
        self._said = ""

    def say(self, line: str) -> None:
        self._said = line[:200]

    def speak_with(self, speak: Callable[[], str]) -> None:
        """Has `speak` asked for the line when one is due; "" leaves what was said last."""
        self._speak = speak

    async def report(self, report: Report) -> None:
        """Until it is cancelled."""
        started = time.monotonic()
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            await report(round(time.monotonic() - started, 1), clean(self._speak() or self._said) or None)
            await asyncio.sleep(_EVERY_SECONDS)
