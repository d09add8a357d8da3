"""Programs of the host that a node needs, and the Debian packages that bring them."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from belljar.base import proc
from belljar.model.errors import Error, PermissionDenied
from belljar.node.progress import Progress

__all__ = ("PACKAGES", "USUAL_MODES", "install_packages", "missing_packages")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USUAL_MODES = ("/bin/sh", "-c", 'umask 022; exec "$@"', "sh")
"""Before a command that makes files of a system: a server's umask of 077 would hide them from everybody else."""
PACKAGES: Mapping[str, str] = {
    "mmdebstrap": "mmdebstrap",
    "mkfs.erofs": "erofs-utils",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
"""Program or file → package."""


def missing_packages() -> list[str]:
    """Packages that this host lacks, seen by their programs and files, so that other ways to have them count too."""
    return sorted({package for name, package in PACKAGES.items() if not _present(name)})


async def install_packages(progress: Progress) -> None:
    """Installs what is missing, by apt. Raises PermissionDenied without root, Error where apt cannot do it."""
    missing = missing_packages()
    if not missing:
        return
    by_hand = f"apt-get install {' '.join(missing)}"
    if os.geteuid() != 0:
        raise PermissionDenied(f"Debian packages are missing: {', '.join(missing)}", hint=f"sudo {by_hand}")
    if shutil.which("apt-get", path=_PATH) is None:
        raise Error(
            f"this host lacks what Debian has in its packages {', '.join(missing)}",
            hint="install the same programs with your distribution's package manager",
        )
    with progress.step("host packages") as step:
        step.say(f"installing {', '.join(missing)}")
        try:
            await _apt("update", "-qq")
            done = await _apt("install", "--yes", "--no-install-recommends", *missing)
        except proc.CommandFailed as error:
            raise Error(f"apt-get cannot install {', '.join(missing)}: {error}", hint=by_hand) from error
        if size := re.search(rb"Need to get ([\d.,]+ \wB)", done.stdout):
            step.downloaded(f"{len(missing)} packages and what they need ({size[1].decode()})")
    if left := missing_packages():
        raise Error(f"apt-get installed them, yet these are not there: {', '.join(left)}", hint=by_hand)


def _present(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name, path=_PATH) is not None


async def _apt(*arguments: str) -> proc.Completed:
    env = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", "PATH": _PATH}
    # Waits for another apt (unattended upgrades) instead of failing at once.
    return await proc.run([*USUAL_MODES, "apt-get", "-o", "DPkg::Lock::Timeout=120", *arguments], env=env, timeout=600)
