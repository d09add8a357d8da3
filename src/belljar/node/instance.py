"""Names of everything that a state directory owns on the host, so that two servers on one machine never collide."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from belljar.base.files import write_atomic
from belljar.base.home import make_home
from belljar.base.ids import ALPHABET
from belljar.model.errors import PermissionDenied

__all__ = ("Instance", "instance_of")

_RUN = (
    Path("/run/belljar")
    if os.geteuid() == 0
    else Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/belljar-{os.geteuid()}") / "belljar"
)
"""Without root there is only the fake engine."""
_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Instance:
    """One state directory. `id` is six letters and digits, drawn once and kept in the directory."""

    id: str
    home: Path

    @property
    def run(self) -> Path:
        """Sockets, pipes and bundles of running sandboxes: on tmpfs, short (socket paths have at most 108 bytes), 0700."""
        return _RUN / self.id

    def make_run(self) -> None:
        """Makes `run`, for its owner alone. The folder above can be passed through whatever the umask says: the socket for
        the group lies there. Raises PermissionDenied when that is somebody else's.
        """
        above = self.run.parent
        above.mkdir(parents=True, exist_ok=True)
        if above.stat().st_uid != os.geteuid():
            raise PermissionDenied(f"{above} belongs to another user")
        above.chmod(0o755)
        self.run.mkdir(exist_ok=True, mode=0o700)

    @property
    def sandboxes(self) -> Path:
        """Records of sandboxes, one folder each: on disk, outlives a reboot."""
        return self.home / "sandboxes"

    @property
    def overlays(self) -> Path:
        """Where what sandboxes write goes (unlinked files of their kernels)."""
        return self.home / "overlays"

    @property
    def ready(self) -> Path:
        """Files of filesystem snapshots in the form that guests start from; can be made again."""
        return self.home / "ready"

    @property
    def cgroup(self) -> str:
        return f"belljar-{self.id}"

    @property
    def namespace(self) -> Path:
        """Where the network namespace with the far ends of all links is mounted (`nsenter --net=` takes it)."""
        return self.run / "netns"

    @property
    def table(self) -> str:
        """The nftables table."""
        return f"belljar_{self.id}"

    @property
    def link_prefix(self) -> str:
        """Of the host's ends of all slots: a name that starts with it is ours."""
        return f"bj{self.id}h"

    def link(self, number: int) -> tuple[str, str]:
        """The host's and the far end of slot `number`: at most 15 characters (IFNAMSIZ)."""
        return f"{self.link_prefix}{number:x}", f"bj{self.id}g{number:x}"


def instance_of(home: Path) -> Instance:
    """The instance of this state directory; draws the id at first use. The caller holds the directory's lock."""
    file = home / "instance"
    try:
        id = file.read_text().strip()
    except FileNotFoundError:
        id = "".join(secrets.choice(ALPHABET) for _ in range(_LENGTH))
        make_home(home)
        write_atomic(file, id.encode())
    if len(id) != _LENGTH or not set(id) <= set(ALPHABET):
        raise ValueError(f"{file} does not hold an instance id")
    return Instance(id, home)
