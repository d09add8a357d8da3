"""What is open while the files of a guest are saved."""

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from belljar.base.tasks import in_thread
from belljar.node.engine.gvisor.upper import open_contents, write_upper
from belljar.node.engine.process import HostProcess

__all__ = ("Files", "finished", "saved")


@dataclass(frozen=True, slots=True)
class Files:
    """`descriptors`: what the kernel's checkpoint of a file system is written to. Of its four files only the tree matters."""

    nowhere: int
    tree: BinaryIO
    contents: int
    target: int

    @property
    def descriptors(self) -> tuple[int, int, int, int]:
        return self.nowhere, self.tree.fileno(), self.nowhere, self.nowhere

    async def fill(self, limit: int) -> None:
        """Makes the target of the tree."""
        self.tree.seek(0)
        await finished(lambda go_on: write_upper(self.tree, self.contents, self.target, limit, go_on))


async def finished(work: Callable[[Callable[[], bool]], None]) -> None:
    """Runs it in a thread. A caller that is cancelled waits until it has ended; what it is given tells whether to go on."""
    left = threading.Event()
    task = asyncio.ensure_future(in_thread(work, lambda: not left.is_set()))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        left.set()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # nobody asks for it any more
        raise


@contextlib.asynccontextmanager
async def saved(kernel: HostProcess, overlay: Path, target: Path) -> AsyncGenerator[Files]:
    """`target` is there afterwards only if nothing was raised inside. Raises OSError."""
    done = False
    with contextlib.ExitStack() as opened:
        files = await in_thread(_open, opened, kernel, overlay, target)
        try:
            yield files
            done = True
        finally:
            if not done:
                await asyncio.shield(in_thread(target.unlink, True))


def _open(opened: contextlib.ExitStack, kernel: HostProcess, overlay: Path, target: Path) -> Files:
    contents = open_contents(kernel, overlay)
    opened.callback(os.close, contents)
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    opened.callback(os.close, nowhere)
    tree = opened.enter_context(tempfile.TemporaryFile(dir=target.parent))  # noqa: SIM115
    place = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    opened.callback(os.close, place)
    return Files(nowhere, tree, contents, place)
