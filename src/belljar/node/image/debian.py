"""A tree of Debian packages in a folder, by mmdebstrap, out of reach of the host's mounts and processes."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.errors import Error, Internal
from belljar.node.hostpackages import USUAL_MODES
from belljar.node.progress import size_text

__all__ = ("APART", "SUITE", "Debian", "debian_tree", "installed_packages", "mirror_lines")

SUITE = "trixie"
_LIMIT = 1200.0
_FIELD = re.compile(r"(?m)^(Package|Version|Status): (.*)$")
# Killed with their parent, and their mounts gone with them, however this process ends: nothing that deletes a half-made
# tree can reach the host's /dev through it.
APART = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--fork",
    "--kill-child",
)


@dataclass(frozen=True, slots=True)
class Debian:
    """`count` packages of `downloaded` bytes were fetched. `date`: seconds since 1970, when the newest list was signed."""

    count: int
    downloaded: int
    date: int

    @property
    def text(self) -> str:
        return f"{self.count} Debian packages ({size_text(self.downloaded)})"


async def debian_tree(
    root: Path,
    packages: Sequence[str],
    *,
    variant: str,
    hooks: Sequence[str] = (),
    extra: Sequence[str] = (),
    dpkg: Sequence[str] = (),
    mirror: Sequence[str] = (),
) -> Debian:
    """Fills `root` (which is not there yet). `hooks`: shell lines, run as `sh -c LINE sh ROOT` at the end. `extra`: packages that
    the hooks fetch.

    `mirror`: lines of a sources.list, empty for mmdebstrap's own. Raises Error with mmdebstrap's words.
    """
    if shutil.which("mmdebstrap") is None:
        raise Error("mmdebstrap is missing", hint="belljar setup installs it as root; else: apt-get install mmdebstrap")
    words = [*APART, *USUAL_MODES, "mmdebstrap", "--mode=root", f"--variant={variant}", "--format=directory"]
    words += ["--skip=cleanup/apt,cleanup/reproducible", '--aptopt=Apt::Install-Recommends "false"']
    words += [f"--aptopt={line}" for line in await _host_options()]
    words += [f"--dpkgopt={line}" for line in dpkg]
    words += [f"--include={','.join(packages)}", *(f"--customize-hook={hook}" for hook in hooks)]
    words += [SUITE, str(root)]
    try:
        await proc.run([*words, *mirror], timeout=_LIMIT, env=_environment())
    except proc.CommandFailed as error:
        said = error.stderr.decode(errors="replace")
        raise Error(
            f"Debian packages cannot be fetched or unpacked: {_gist(said)}",
            hint="check that this machine reaches a Debian mirror (apt-get update); BELLJAR_DEBIAN_MIRROR names another one",
        ) from error
    return await in_thread(_what_came, root, frozenset(extra))


async def mirror_lines(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Lines of a sources.list: of ``$BELLJAR_DEBIAN_MIRROR``, else of the mirror this Debian host uses, else none."""
    if chosen := environ.get("BELLJAR_DEBIAN_MIRROR"):
        return [f"deb {chosen} {SUITE} main", f"deb {chosen} {SUITE}-updates main"]
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(ORIGIN)", "Created-By: Packages"]
    try:
        said = await proc.run(words, timeout=30)
    except proc.CommandFailed:
        return []  # another distribution
    return _lines_of(said.stdout.decode(errors="replace"))


def _lines_of(targets: str) -> list[str]:
    """Of `apt-get indextargets`: address, suite and, where lists were fetched before, the origin."""
    main = security = ""
    for line in targets.splitlines():
        address, release, origin, *_ = [*line.split(), "", "", ""]
        if origin not in ("", "Debian") or not re.search(r"/debian(-security)?/?$", address):
            continue
        if release.endswith("-security"):
            security = security or address
        elif re.fullmatch("[a-z]+", release):
            main = main or address
    if not main:
        return []
    lines = [f"deb {main} {SUITE} main", f"deb {main} {SUITE}-updates main"]
    return [*lines, f"deb {security} {SUITE}-security main"] if security else lines


def installed_packages(root: Path) -> list[str]:
    """``name version`` of each, sorted: from the tree's own records, or (variant extract) from what was unpacked."""
    text = (root / "var/lib/dpkg/status").read_text(errors="replace")
    found: list[str] = []
    for entry in text.split("\n\n"):
        fields = dict(_FIELD.findall(entry))
        if fields.get("Status", "").endswith(" installed"):
            found.append(f"{fields['Package']} {fields['Version']}")
    if not found:
        archives = (path.stem.split("_") for path in (root / "var/cache/apt/archives").glob("*_*_*.deb"))
        found = [f"{name} {unquote(version)}" for name, version, *_ in archives]
    return sorted(found)


async def _host_options() -> list[str]:
    """The host's own way to its mirrors: proxies and CAs of apt."""
    try:
        said = await proc.run(["apt-config", "dump", "Acquire"], timeout=30)
    except proc.CommandFailed:
        return []
    lines = said.stdout.decode(errors="replace").splitlines()
    return [line for line in lines if re.match(r"Acquire::\S*(?:Proxy|Proxy-Auto-Detect|CAInfo)\S* ", line, re.I)]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    return kept | {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def _what_came(root: Path, extra: frozenset[str]) -> Debian:
    """From the package lists in the tree: mmdebstrap says nothing, and has removed the first half of the packages."""
    names = {line.partition(" ")[0] for line in installed_packages(root)} | extra
    sizes: dict[str, int] = {}
    newest = 0
    for listed in (root / "var/lib/apt/lists").glob("*_*"):
        with open(listed, encoding="utf-8", errors="replace") as file:
            name = ""
            for line in file:
                if line.startswith("Package: "):
                    name = line[9:-1]
                elif line.startswith("Size: ") and name in names:
                    sizes[name] = int(line[6:])
                elif line.startswith("Date: "):
                    newest = max(newest, int(parsedate_to_datetime(line[6:].strip()).timestamp()))
    if not newest:
        raise Internal("the package lists have no date")
    return Debian(len(sizes), sum(sizes.values()), newest)


def _gist(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:")) or " E:" in line]
    return "; ".join(lines[:6])[:800] or said[-400:]
