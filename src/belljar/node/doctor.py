"""What works on this machine, what does not, why, and the command that mends it. Looks only; changes nothing."""

import contextlib
import ctypes
import os
import platform
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from belljar.base import proc
from belljar.base.home import cache_home, state_home
from belljar.base.tasks import in_thread
from belljar.base.units import format_size
from belljar.model.errors import Error
from belljar.model.sandbox import DEFAULT_IMAGE
from belljar.node.artifacts import state_store
from belljar.node.engine.gvisor.build import KIND as ENGINE
from belljar.node.engine.gvisor.build import engine_build, program_version
from belljar.node.engine.gvisor.cgroup import find_hierarchies
from belljar.node.guest.runtime import KIND as RUNTIME
from belljar.node.guest.runtime import guest_runtime
from belljar.node.hostpackages import missing_packages
from belljar.node.image.catalog import Catalog
from belljar.node.instance import Instance
from belljar.node.machine import available_memory
from belljar.node.net.foreign import obstacles
from belljar.node.net.question import is_answer, parse
from belljar.node.net.resolvers import Resolvers
from belljar.node.net.rules import ENVIRONMENT, Resolver, render
from belljar.node.net.slot import slot_at
from belljar.node.setup import damaged
from belljar.node.trust import host_ca_bundle

__all__ = ("FAIL", "OK", "WARN", "Check", "examine")

OK, WARN, FAIL = "ok", "warn", "fail"
_GiB = 1 << 30
_DISK_LOW, _DISK_NEEDED = 5 * _GiB, 1 * _GiB
_MEMORY_LOW, _MEMORY_NEEDED = 2 * _GiB, 512 << 20
_KERNEL_NEEDED = (5, 8)
_MACHINES = ("x86_64", "aarch64")
_OLDEST_NOW = 1767225600.0  # 2026-01-01: before this release was made
_RESOLVER_WAIT = 2.0
_CLONE_NEWNET = 0x40000000
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_ROOT_QUESTION = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01"  # the name servers of the root: any resolver knows


@dataclass(frozen=True, slots=True)
class Check:
    """`status`: ok, warn (works, but) or fail. `mend`: a command, or what to do, when it is not ok."""

    name: str
    status: str
    found: str
    mend: str = ""


async def examine(
    home: Path | None = None, *, cache: Path | None = None, environ: Mapping[str, str] = os.environ
) -> list[Check]:
    """All checks, in the order in which they should be mended. Half a second; 4 more where resolvers are silent.

    Raises nothing: a check that cannot be made is a failed one with the reason.
    """
    state, store = home or state_home(environ), cache or cache_home(environ)
    engine = await _engine(state)
    return await in_thread(_examine, state, store, environ, engine)


def _examine(home: Path, cache: Path, environ: Mapping[str, str], engine: Check) -> list[Check]:
    looks: list[tuple[str, Callable[[], Iterator[Check] | Check]]] = [
        ("kernel", _kernel),
        ("root", _root),
        ("clock", _clock),
        ("packages", _packages),
        ("cgroups", _cgroups),
        ("namespaces", _namespaces),
        ("nftables", _nftables),
        ("forwarding", _forwarding),
        ("firewall", _firewall),
        ("names", _resolvers),
        ("disk", lambda: _disk(home, cache)),
        ("memory", _memory),
        ("run", _run_folder),
        ("engine", lambda: engine),
        ("runtime", lambda: _runtime(home, environ)),
        ("images", lambda: _images(home)),
        ("contents", lambda: _contents(home)),
        ("certificates", lambda: _certificates(home, environ)),
    ]
    found: list[Check] = []
    for name, look in looks:
        try:
            result = look()
            found += [result] if isinstance(result, Check) else result
        except Exception as error:  # noqa: BLE001 (one check that breaks must not hide the others)
            found.append(Check(name, FAIL, f"cannot be told: {error}"))
    return found


def _kernel() -> Check:
    release, machine = platform.release(), platform.machine()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if platform.system() != "Linux" or numbers < _KERNEL_NEEDED:
        return Check("kernel", FAIL, f"{platform.system()} {release}", "Linux 5.8 or later is needed")
    if machine not in _MACHINES:
        return Check("kernel", FAIL, f"a {machine} machine", f"gVisor runs on {' and '.join(_MACHINES)}")
    return Check("kernel", OK, f"Linux {release} on {machine}")


def _root() -> Check:
    if os.geteuid() == 0:
        return Check("root", OK, "this is root")
    return Check(
        "root", FAIL, "not root: no sandbox can be made, and half of these checks cannot look", "sudo belljar doctor"
    )


def _clock() -> Check:
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _OLDEST_NOW:
        return Check("clock", FAIL, f"{said}: that is past; TLS fails inside sandboxes", "timedatectl set-ntp true")
    return Check("clock", OK, said)


def _packages() -> Check:
    if missing := missing_packages():
        return Check("packages", FAIL, f"missing: {', '.join(missing)}", f"apt-get install {' '.join(missing)}")
    return Check("packages", OK, "every program that set-up needs is here")


def _cgroups() -> Check:
    hierarchies = find_hierarchies(Path("/proc/self/mountinfo").read_text())
    if problem := hierarchies.problem():
        mend = "boot with systemd.unified_cgroup_hierarchy=1, or mount the controllers"
        return Check("cgroups", WARN, f"{problem}: sandboxes run without limits on the host's side", mend)
    kinds = [f"v1 ({', '.join(sorted(hierarchies.v1))})"] if hierarchies.v1 else []
    if hierarchies.v2_controllers:
        kinds.append(f"v2 ({', '.join(sorted(hierarchies.v2_controllers))})")
    return Check("cgroups", OK, " and ".join(kinds))


def _namespaces() -> Check:
    def enter() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        return ctypes.get_errno() if libc.unshare(_CLONE_NEWNET) else 0

    with ThreadPoolExecutor(1) as own:  # the thread ends, and the namespace with it
        error = own.submit(enter).result()
    if error:
        return Check("namespaces", FAIL, f"no network namespace can be made: {os.strerror(error)}", "run as root")
    return Check("namespaces", OK, "network namespaces can be made")


def _nftables() -> Check:
    try:
        said = proc.run_sync(["nft", "--version"], timeout=10, env=ENVIRONMENT).stdout.decode(errors="replace")
        instance, block = Instance("doctor", Path("/")), IPv4Network("10.0.0.0/18")
        table = render(instance, block, Resolver("10.0.0.1", 53), [slot_at(instance, block, 1, 1500)], [1])
        proc.run_sync(["nft", "--check", "-f", "-"], input=table.encode(), timeout=20, env=ENVIRONMENT)
    except proc.CommandFailed as error:
        if error.returncode == 127:
            return Check("nftables", FAIL, "nft is missing", "apt-get install nftables")
        lines = error.stderr.decode(errors="replace").strip().splitlines() or [str(error)]
        return Check("nftables", FAIL, f"this kernel refuses the sandboxes' rules: {lines[0]}", "modprobe nf_tables")
    return Check("nftables", OK, f"{said.partition('(')[0].strip()}; the kernel takes the sandboxes' rules")


def _forwarding() -> Check:
    now = _FORWARD.read_text().strip()
    if now == "1":
        return Check("forwarding", OK, "IPv4 is forwarded")
    return Check("forwarding", OK, "IPv4 is not forwarded; the server switches it on, and `down --purge` off again")


def _firewall() -> Iterator[Check]:
    found = obstacles()
    if not found:
        yield Check("firewall", OK, "no other program's rules stop the sandboxes' packets")
    for obstacle in found:
        what = {
            "forward": "sandboxes cannot reach the internet",
            "input": "sandboxes cannot resolve names",
            "output": "the server cannot reach ports of sandboxes",
        }[obstacle.hook]
        yield Check("firewall", WARN, f"{obstacle.chain}: {obstacle.why}, so {what}", obstacle.mend)


def _resolvers() -> Check:
    servers = Resolvers().current()
    with ThreadPoolExecutor(len(servers)) as askers:
        times = dict(zip(servers, askers.map(_ask, servers), strict=True))
    said = ", ".join(f"{server} {'silent' if t is None else f'{t * 1000:.0f} ms'}" for server, t in times.items())
    if all(t is None for t in times.values()):
        return Check("names", FAIL, f"no resolver of this host answers: {said}", "mend /etc/resolv.conf")
    if any(t is None for t in times.values()):
        return Check("names", WARN, f"a resolver does not answer: {said}", "take it out of /etc/resolv.conf")
    return Check("names", OK, f"resolvers of this host, asked for the sandboxes: {said}")


def _ask(server: str) -> float | None:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    began = time.monotonic()
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_RESOLVER_WAIT)
        asking.connect((server, 53))
        asking.send(_ROOT_QUESTION)
        if is_answer(asking.recv(4096), parse(_ROOT_QUESTION), 0):
            return time.monotonic() - began
    return None


def _disk(home: Path, cache: Path) -> Iterator[Check]:
    for name, folder in (("state", home), ("cache", cache)):
        place = folder
        while not place.exists():
            place = place.parent
        stat = os.statvfs(place)
        free = stat.f_bavail * stat.f_frsize
        said = f"{name} {folder}: {format_size(free)} free"
        if free < _DISK_NEEDED:
            yield Check("disk", FAIL, said, f"free some space, or set BELLJAR_{'HOME' if name == 'state' else 'CACHE'}")
        elif free < _DISK_LOW:
            yield Check("disk", WARN, f"{said}: sandboxes are refused below 1 GiB", "free some space")
        else:
            yield Check("disk", OK, said)


def _memory() -> Check:
    free = available_memory()
    said = f"{format_size(free)} available"
    if free < _MEMORY_NEEDED:
        return Check("memory", FAIL, f"{said}: new sandboxes are refused", "end sandboxes or other programs")
    return Check(
        "memory", WARN if free < _MEMORY_LOW else OK, said, "end what is not needed" if free < _MEMORY_LOW else ""
    )


def _run_folder() -> Check:
    """What lives in /run is believed to end with the machine's boot, as links and mounts do."""
    kinds = {
        fields[4]: after.split()[0]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        for before, _, after in [line.partition(" - ")]
        for fields in [before.split()]
    }
    place = Path("/run")
    kind = next(kinds[str(folder)] for folder in (place, *place.parents) if str(folder) in kinds)
    if kind not in ("tmpfs", "ramfs"):
        return Check(
            "run",
            WARN,
            f"/run is on {kind}: what a reboot left there is told apart by its boot id",
            "mount a tmpfs on /run",
        )
    return Check("run", OK, f"/run is a {kind}")


async def _engine(home: Path) -> Check:
    try:
        built = state_store(home).list(ENGINE)
        if not built:
            return Check("engine", FAIL, "no engine in the state directory yet", "belljar setup")
        newest = engine_build(max(built, key=lambda one: one.created))
        version = await program_version(newest.runsc)
    except (Error, OSError, ValueError) as error:
        return Check("engine", FAIL, str(error), "belljar setup")
    more = f", {len(built)} builds kept" if len(built) > 1 else ""
    how = "built here" if newest.own else "given: shows the machine's memory and processors inside"
    return Check("engine", OK, f"gVisor {version} ({how}{more})")


def _runtime(home: Path, environ: Mapping[str, str]) -> Check:
    made = state_store(home).list(RUNTIME)
    if not made:
        return Check("runtime", FAIL, "no guest runtime in the state directory yet", "belljar setup")
    newest = max(made, key=lambda one: one.created)
    return Check("runtime", OK, f"{newest.facts.get('python', 'python')} and the agent, {format_size(newest.size)}")


def _images(home: Path) -> Check:
    images = Catalog(home).list()
    for name in ("base", DEFAULT_IMAGE):
        if not any(image.name == name for image in images):
            return Check("images", FAIL, f"the image {name} is not here", "belljar setup")
    return Check("images", OK, ", ".join(f"{image.name} ({format_size(image.size)})" for image in images))


def _contents(home: Path) -> Check:
    if problems := damaged(home):
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        return Check("contents", FAIL, f"{problems[0]}{more}", "belljar setup")
    return Check("contents", OK, "engine, runtime and images are as they were made")


def _certificates(home: Path, environ: Mapping[str, str]) -> Check:
    bundle = host_ca_bundle(environ)
    if bundle is None:
        return Check("certificates", WARN, "this host has no CA bundle", "apt-get install ca-certificates")
    made = state_store(home).list(RUNTIME)
    if not made:
        return Check("certificates", OK, f"the host's CA bundle is {bundle}")
    newest = max(made, key=lambda one: one.created)
    setting = environ.get("BELLJAR_TRUST_HOST_CAS")
    if guest_runtime(newest, environ).guest_env:
        why = "BELLJAR_TRUST_HOST_CAS says so" if setting else "this host's environment names a CA bundle"
        return Check("certificates", OK, f"sandboxes trust the host's CAs ({bundle}): {why}")
    why = "BELLJAR_TRUST_HOST_CAS says so" if setting else "no variable of this host's environment names a CA bundle"
    return Check("certificates", OK, f"sandboxes trust their image's own CAs: {why}")
