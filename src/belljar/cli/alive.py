"""A sandbox that lives as long as the command that made it."""

import contextlib
import threading
from collections.abc import Generator

import belljar
from belljar.model.errors import Error

__all__ = ("kept_alive",)

_EVERY_SECONDS = 240.0


@contextlib.contextmanager
def kept_alive(sandbox: "belljar.Sandbox", lease: str) -> Generator[None]:
    """Renews the lifetime again and again, so that a killed command leaves no sandbox for longer than `lease`."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_EVERY_SECONDS):
            with contextlib.suppress(Error):
                sandbox.update(lifetime=lease)

    threading.Thread(target=renew, name="belljar-lease", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
