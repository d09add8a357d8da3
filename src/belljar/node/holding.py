"""What one guest holds on the host (an engine instance and a network slot): made, begun, freed."""

import contextlib
import os
import secrets
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from belljar.base.files import close_descriptors, remove_tree
from belljar.base.ids import is_id, new_id
from belljar.base.proc import is_alive
from belljar.base.tasks import in_thread, opened_in_thread
from belljar.model.sandbox import Limits, Network, SandboxSpec
from belljar.node.engine.api import Instance, InstanceSpec, NetworkAttachment, temporary
from belljar.node.guest.guest import Guest
from belljar.node.machine import Machine
from belljar.node.net.slots import Slot
from belljar.node.origin import Origin
from belljar.node.record import PREFIX

__all__ = (
    "Holding",
    "begin",
    "configuration",
    "connect",
    "free",
    "make",
    "owned",
    "owned_folder",
    "plan",
    "reclaim",
    "settle",
)

_HELLO = 20.0
OnLost = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Holding:
    """The instance has an id of its own, which all its things on the host carry. `slot` None: no network, not even a closed
    one.
    """

    instance: Instance
    slot: Slot | None = None

    @property
    def id(self) -> str:
        return self.instance.spec.id


def plan(machine: Machine, origin: Origin, limits: Limits) -> Holding:
    """A new one, of which nothing is there yet: write it down before it is made."""
    spec = replace(
        _bare(machine, new_id(PREFIX), limits),
        build=origin.build,
        root=origin.root,
        upper=origin.upper,
        runtime=origin.runtime.folder,
        argv=origin.runtime.argv,
        env=origin.runtime.env,
    )
    return Holding(Instance(spec))


async def make(machine: Machine, planned: Holding, network: Network | None) -> Holding:
    """Created, not begun. `network` None: without a slot. Raises NoCapacity, DiskFull, EngineFailed: then `free` what was
    planned.
    """
    spec = planned.instance.spec
    await in_thread(_own, machine.instance.run, spec.id)
    slot = await machine.slots.lease(spec.id, network) if machine.slots and network is not None else None
    spec.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    spec.overlay.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Holding(await machine.engine.create(await machine.engine.prepare(spec)), slot)


async def begin(machine: Machine, holding: Holding, origin: Origin) -> None:
    """Boots it, or lets it go on from the checkpoint. Raises EngineFailed, DeadlineExceeded, DiskFull."""
    if holding.slot is None or machine.slots is None:
        await _begin(machine, holding.instance, origin, None)
        return
    fd = await opened_in_thread(close_descriptors, machine.slots.open_socket, holding.slot)
    try:
        await _begin(machine, holding.instance, origin, _attachment(holding.slot, fd))
    finally:
        os.close(fd)


async def _begin(machine: Machine, instance: Instance, origin: Origin, network: NetworkAttachment | None) -> None:
    if origin.checkpoint is not None:
        await machine.engine.restore(instance, origin.checkpoint, network)
    else:
        await machine.engine.start(instance, network)


async def connect(machine: Machine, instance: Instance, *, on_lost: OnLost) -> Guest:
    """A session with the agent of a running guest; the agent may be in the middle of one with a dead server."""
    channel = machine.engine.open_channel(instance)
    return await Guest.open(channel, kernel=machine.runtime.kernel, on_lost=on_lost, timeout=_HELLO)


def settle(machine: Machine, holding: Holding) -> None:
    """A record names it from now on."""
    (owned_folder(machine.instance.run) / holding.id).unlink(missing_ok=True)


async def free(machine: Machine, holding: Holding) -> None:
    """Ends the guest and frees all it holds. May be repeated; raises EngineFailed when something stays."""
    spec = holding.instance.spec
    await machine.engine.delete(holding.instance)
    for folder in (spec.folder, spec.overlay):
        with contextlib.suppress(FileNotFoundError):
            await in_thread(remove_tree, folder)
    if machine.slots is not None:
        if holding.slot is not None:
            await machine.slots.release(holding.slot)
        # One that was leased, and its server died or its creation failed before it was written down.
        await machine.slots.release_of(spec.id)
    settle(machine, holding)


def owned_folder(run: Path) -> Path:
    """One file for each guest that the server has for itself, with the process that it is: those that wait for a claim, become a
    template, or take a sandbox's place. They end with the server, or are freed by the next one.
    """
    return run / "owned"


def owned(run: Path) -> frozenset[str]:
    """Their ids, as far as the server lives; for those who look at the host from outside."""
    found: set[str] = set()
    folder = owned_folder(run)
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if is_alive(int(path.read_text())):
                found.add(path.name)
        except (OSError, ValueError):
            continue
    return frozenset(found)


async def reclaim(machine: Machine, known: Collection[str]) -> list[str]:
    """Frees every instance of this state directory whose id is not in `known`, however little is left of it: those that
    waited for a claim, and those whose record was lost. Returns the ids.
    """
    folders = (machine.instance.run / "sandboxes", machine.instance.overlays)
    strays = {thing.owner for thing in await machine.engine.residue()}
    strays.update(entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir())
    await in_thread(_disown, machine.instance.run)
    found = sorted(id for id in strays if is_id(id, PREFIX) and id not in known)
    for id in found:
        await free(machine, Holding(Instance(_bare(machine, id, SandboxSpec().limits))))
    return found


def configuration(origin: Origin, spec: SandboxSpec, id: str, slot: Slot | None) -> dict[str, Any]:
    """What the agent is told of the sandbox it is in: `configure` in docs/wire.md."""
    name = spec.name or id
    online = slot is not None and spec.network is not Network.NONE
    said: dict[str, Any] = {
        "hostname": name,
        "env": {**origin.image.env, **origin.runtime.guest_env, **spec.env},
        "user": spec.user or origin.image.user or None,
        # Another user than the image's has a home of its own.
        "workdir": spec.workdir or (None if spec.user else origin.image.workdir),
        "pids": spec.limits.pids,
        "memory": spec.limits.memory,
        "hosts": f"127.0.0.1 localhost\n::1 localhost\n{slot.address if slot else '127.0.1.1'} {name}\n",
        "resolv": f"nameserver {slot.gateway}\n" if slot and online else "# no network\n",
        "machine_id": None if origin.same else secrets.token_hex(16),
        # As in the specification of a guest that boots; one that was restored has what its template was given.
        "tmp": temporary(spec.limits)[0],
        "shm": temporary(spec.limits)[1],
        "boot_id": str(uuid.uuid4()) if origin.checkpoint is not None and not origin.past else None,
    }
    return {key: value for key, value in said.items() if value is not None or key == "workdir"}


def _bare(machine: Machine, id: str, limits: Limits) -> InstanceSpec:
    """What `delete` needs to find an instance by its id alone."""
    return InstanceSpec(
        id=id,
        folder=machine.instance.run / "sandboxes" / id,
        build=machine.build,
        root=machine.instance.home,
        runtime=machine.runtime.folder,
        overlay=machine.instance.overlays / id,
        argv=(),
        env={},
        hostname="sandbox",
        limits=limits,
        cgroup=f"{machine.instance.cgroup}/{id}",
    )


def _own(run: Path, id: str) -> None:
    folder = owned_folder(run)
    folder.mkdir(exist_ok=True, mode=0o700)
    (folder / id).write_text(str(os.getpid()))


def _disown(run: Path) -> None:
    folder = owned_folder(run)
    for path in folder.iterdir() if folder.is_dir() else ():
        path.unlink(missing_ok=True)


def _attachment(slot: Slot, fd: int) -> NetworkAttachment:
    return NetworkAttachment(slot.address, slot.prefix, slot.gateway, slot.mac, slot.mtu, slot.link, fd)
