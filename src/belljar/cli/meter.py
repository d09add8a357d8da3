"""A line that shows how far a copy is."""

import contextlib
from collections.abc import Callable, Generator

__all__ = ("metered",)


@contextlib.contextmanager
def metered(what: str, *, shown: bool) -> Generator[Callable[[int, int | None], None] | None]:
    """On stderr while it lasts; gives the callback that moves it, or None when it is not to be shown."""
    if not shown:
        yield None
        return
    from rich.console import Console  # 60 ms, only here
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
    from rich.text import Text

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(Text(what).markup, total=None)

        def move(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield move
