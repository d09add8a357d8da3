"""The rows of bench/restores.py, in the order of the table: unit and targets."""

from dataclasses import dataclass

__all__ = ("ROWS", "Row", "row_named")


@dataclass(frozen=True, slots=True)
class Row:
    """`first` and `second`: targets as (p50, p99) in the row's unit, None where there is none. `most`: more is better."""

    name: str
    unit: str = "ms"
    first: tuple[float | None, float | None] | None = None
    second: tuple[float | None, float | None] | None = None
    most: bool = False


_FORKS: dict[str, tuple[tuple[float, None], ...]] = {
    "fork into 20": ((3000, None), (1200, None)),
    "fork into 5, 0.1 GB on disk": (),
    "fork into 5, 1 GB on disk": (),
    "fork into 5, 4 GB on disk": (),
}
ROWS = (
    Row("create + echo, pool hit", first=(40, 150), second=(20, 60)),
    Row("create + node -v, pool hit", first=(150, 300), second=(90, 150)),
    Row("create, pool hit, SDK"),
    Row("create, pool hit, server side", first=(15, None), second=(6, None)),
    Row("create, pool empty", first=(350, None), second=(120, None)),
    Row("create + echo, pool empty"),
    Row("create + node -v, pool empty"),
    Row("create + echo, pool empty but for one created"),
    Row("create + echo, CPU 0.7"),
    Row("create + echo, own env"),
    Row("create + echo, own user"),
    Row("create + echo, 3 CPUs, nobody waits"),
    Row("create + echo, disk 3 GiB, nobody waits"),
    Row("terminate"),
    Row("exec true", first=(15, None), second=(8, None)),
    Row("create code + first run_code, pool hit"),
    Row("run_code, first call of a sandbox"),
    Row("run_code, next call", first=(10, None), second=(4, None)),
    Row("memory snapshot 64 MiB, until durable"),
    Row("memory snapshot 64 MiB, pause of the source", first=(150, None), second=(50, None)),
    Row("memory snapshot 64 MiB, longest gap inside"),
    Row("create from memory snapshot 64 MiB + answer", first=(200, None), second=(90, None)),
    Row("the same, its files not in the page cache"),
    Row("filesystem snapshot, 10 MB changed", first=(300, None), second=(60, None)),
    Row("filesystem snapshot, 10 MB changed after 1 GB"),
    Row("filesystem snapshot, 200 MB changed"),
    Row("create from filesystem snapshot 10 MB + echo, at once"),
    Row("create from filesystem snapshot 200 MB + echo, at once"),
    Row("create from filesystem snapshot 200 MB + echo, later"),
    *(
        Row(f"{row}{what}", "ms", *(targets if not what else ()))
        for row, targets in _FORKS.items()
        for what in ("", ", and each has answered", ", pause of the source", ", longest gap inside the source")
    ),
    Row("burst of 100 creates: success", "%", first=(100, None), second=(100, None), most=True),
    Row("burst of 100 creates: wall", first=(15000, None), second=(6000, None)),
    Row("idle memory, unshared", "MiB", first=(30, None), second=(18, None)),
    Row("idle memory, fall of what is available", "MiB"),
)


def row_named(name: str) -> Row:
    """Milliseconds and no target for one that is not in the list."""
    return next((row for row in ROWS if row.name == name), Row(name))
