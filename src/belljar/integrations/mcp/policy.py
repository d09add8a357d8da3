"""What the operator of an MCP server sets, and the bounds that nobody sets."""

from dataclasses import dataclass

from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import Network

__all__ = (
    "LEASE_SECONDS",
    "MAX_ANSWER",
    "MAX_COMMAND",
    "MAX_LISTED",
    "MAX_READ",
    "MAX_REQUEST",
    "MAX_SPOOLED",
    "MAX_WAITING",
    "MAX_WRITE",
    "Policy",
)

MAX_REQUEST = 16 << 20
"""Bytes of one message of a client."""
MAX_ANSWER = 960 << 10
"""Bytes of one answer: clients take 1 MiB at once."""
MAX_COMMAND = 100_000
"""Characters of one command: Linux takes 128 KiB in one word."""
MAX_WRITE = 8 << 20
"""Characters of one write."""
MAX_READ = 64 << 10
"""Bytes of one read."""
MAX_LISTED = 1000
"""Entries of one listing."""
MAX_SPOOLED = 64 << 20
"""Bytes of a command's output that are kept in the sandbox when they do not fit the answer."""
MAX_WAITING = 64
"""Calls that wait for one of the slots."""
LEASE_SECONDS = 900.0
"""A sandbox whose server vanished lives for so long."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`images`: what a client may choose from, the first is the default. `lifetime`: seconds from its start, `idle`: seconds
    without a call, after which a sandbox ends. `sandboxes` and `calls`: at most so many at once. `timeout`: seconds a command may
    take unless it asks for more, up to `max_timeout`. `output`: characters of each stream that an answer shows.
    `default_sandbox`: calls that name no sandbox share one. `all_sandboxes`: also those that others made.
    """

    images: tuple[str, ...] = ("code",)
    cpu: float = 1.0
    memory: str | int = "1GiB"
    disk: str | int = "10GiB"
    network: str = "open"
    lifetime: float = 86400.0
    idle: float = 3600.0
    sandboxes: int = 5
    calls: int = 8
    timeout: float = 60.0
    max_timeout: float = 600.0
    output: int = 30_000
    default_sandbox: bool = True
    all_sandboxes: bool = False

    def __post_init__(self) -> None:
        if self.network not in set(Network):
            raise InvalidArgument(f"network is {' or '.join(Network)}, not {self.network[:80]!r}")
        if not self.images:
            raise InvalidArgument("at least one image")
        if not (1 <= self.sandboxes <= 1000 and 1 <= self.calls <= 1000):
            raise InvalidArgument("sandboxes and calls lie between 1 and 1000")
        if not 0 < self.timeout <= self.max_timeout <= 86400:
            raise InvalidArgument("a timeout is more than 0 s and at most the longest one, which is at most a day")
        if not (self.lifetime >= 10 and self.idle >= 1):
            raise InvalidArgument("lifetime is at least 10 s and idle at least 1 s")
        if not 1000 <= self.output <= 64_000:
            raise InvalidArgument("output lies between 1,000 and 64,000 characters")
