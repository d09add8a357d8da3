"""From a `start` request to what the launcher is told: pipes or a terminal, environment, user, directory."""

from __future__ import annotations

import fcntl
import os
from struct import pack, unpack

from belljar_agent.api import Refused
from belljar_agent.arguments import encoded, flag, number, object_of, optional_text, strings, text, variables
from belljar_agent.input import Input
from belljar_agent.output import Output
from belljar_agent.ring import HISTORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from belljar_agent.api import Args
    from belljar_agent.loop import Loop
    from belljar_agent.settings import Settings

__all__ = ("Order", "make_order", "resize")

MAX_ARGUMENTS = 6 << 20
MAX_HISTORY = 64 << 20
_TIOCSWINSZ = 0x5414
_TIOCGPTN = 0x8004_5430
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Order:
    """A start that is ready to go. `fds` are the child's; the rest are our ends."""

    __slots__ = (
        "argv",
        "cwd",
        "env",
        "fds",
        "identity",
        "keep_alive",
        "key",
        "stderr",
        "stdin",
        "stdout",
        "terminal",
        "user",
        "words",
    )

    def __init__(self, key: str, argv: list[str], cwd: bytes, env: dict[bytes, bytes]) -> None:
        self.key = key
        self.argv = argv
        self.words = [encoded(word) for word in argv]
        self.cwd = cwd
        self.env = env
        self.user = ""
        self.keep_alive = False
        self.identity: tuple[int, int, list[int]] | None = None
        self.fds: list[int] = []
        self.terminal: bytes | None = None
        self.stdin: Input
        self.stdout: Output
        self.stderr: Output


def make_order(loop: Loop, settings: Settings, args: Args) -> Order:
    """Raises Refused, and OSError when there are no more descriptors; then nothing is left open."""
    key = text(args, "key")
    argv = strings(args, "argv")
    if len(key) > 64:
        raise Refused("invalid_argument", "a process key has at most 64 characters")
    if not argv or not argv[0]:
        raise Refused("invalid_argument", "a command has at least one word")
    if sum(map(len, argv)) + len(argv) > MAX_ARGUMENTS:
        raise Refused("too_large", f"a command has at most {MAX_ARGUMENTS >> 20} MiB")
    size = _size(args)
    history = number(args, "history", HISTORY, most=MAX_HISTORY)
    user = optional_text(args, "user")
    identity = settings.people.identity(user or settings.user)
    env = {
        "PATH": _PATH,
        "HOME": settings.shown_home(identity.home),
        "USER": identity.name,
        "LOGNAME": identity.name,
        "SHELL": identity.shell,
        **({"TERM": "xterm-256color"} if size else {}),
        **settings.env,
        **variables(args, "env"),
    }
    cwd = encoded(settings.directory(optional_text(args, "cwd"), identity.home, user))
    order = Order(key, argv, cwd, {encoded(name): encoded(value) for name, value in env.items()})
    order.user = identity.name
    order.keep_alive = flag(args, "keep_alive")
    if not settings.plain:
        order.identity = (identity.uid, identity.gid, identity.groups)
    if size:
        _terminal(order, loop, size, identity.uid)
    else:
        _pipes(order, loop, flag(args, "stdin", default=True))
    order.stdout.keep = order.stderr.keep = settings.keep_output
    order.stdout.history = history
    return order


def resize(master: int, cols: int, rows: int) -> None:
    """The kernel tells the terminal's foreground group (SIGWINCH)."""
    fcntl.ioctl(master, _TIOCSWINSZ, pack("HHHH", rows, cols, 0, 0))


def _size(args: Args) -> tuple[int, int] | None:
    pty = object_of(args, "pty")
    if pty is None:
        return None
    return number(pty, "cols", 80, least=1, most=4096), number(pty, "rows", 24, least=1, most=4096)


def _terminal(order: Order, loop: Loop, size: tuple[int, int], uid: int) -> None:
    master, slave = os.openpty()
    order.fds = [slave]  # kept open until the child has opened its own: else the master would read an end
    try:
        resize(master, *size)
        # By number: ttyname would look through /proc, which is the users' own.
        order.terminal = b"/dev/pts/%d" % unpack("I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))
        if order.identity is not None:
            os.chown(slave, uid, -1)
        os.set_blocking(master, False)
        writer = os.dup(master)
    except OSError:
        os.close(master)
        os.close(slave)
        raise
    order.stdin = Input(loop, writer, terminal=True)
    order.stdout = Output(loop, master, terminal=True)
    order.stderr = Output(loop, None)


def _pipes(order: Order, loop: Loop, with_stdin: bool) -> None:
    opened: list[int] = []
    try:
        if with_stdin:
            opened += os.pipe2(os.O_CLOEXEC)
        else:
            opened += [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1]
        opened += os.pipe2(os.O_CLOEXEC)
        opened += os.pipe2(os.O_CLOEXEC)
        for fd in (opened[1], opened[2], opened[4]):
            if fd >= 0:
                os.set_blocking(fd, False)
    except OSError:
        for fd in opened:
            if fd >= 0:
                os.close(fd)
        raise
    order.fds = [opened[0], opened[3], opened[5]]
    order.stdin = Input(loop, opened[1] if with_stdin else None)
    order.stdout = Output(loop, opened[2])
    order.stderr = Output(loop, opened[4])
