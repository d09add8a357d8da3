"""From what was asked for to what a guest begins with."""

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

from belljar.model.errors import InvalidArgument, NotFound, SnapshotIncompatible
from belljar.model.sandbox import Limits, SandboxSpec
from belljar.model.snapshot import SnapshotKind
from belljar.node.guest.runtime import GuestRuntime
from belljar.node.machine import ImageEntry, Machine
from belljar.node.origin import Origin, Shape, fits, shape_of, shown_cpus
from belljar.node.snapshot.manifest import Draft, Manifest
from belljar.node.templates import Templates, processor

__all__ = ("Origins",)


class Origins:
    """Opens origins, and tells which pool class they belong to."""

    def __init__(self, machine: Machine, templates: Templates) -> None:
        self._machine = machine
        self._templates = templates
        self._processor = processor()

    def check(self, spec: SandboxSpec) -> None:
        """Raises what `open` would raise for what is not there or not fit, without opening it."""
        if spec.snapshot is None:
            self._machine.images.get(spec.image)
        else:
            self._fit(self._machine.snapshots.get(spec.snapshot), spec.limits)

    def shape(self, spec: SandboxSpec) -> Shape | None:
        """The class whose members could be given to it; None for what is made for one use alone."""
        if spec.snapshot is None:
            return shape_of(f"image:{self._machine.images.get(spec.image).key}", spec.limits)
        draft = self._machine.snapshots.get(spec.snapshot).draft
        return shape_of(f"snapshot:{draft.id}", _fitted(draft, spec.limits)) if draft.template else None

    @contextlib.asynccontextmanager
    async def open(self, spec: SandboxSpec, *, past: bool = False) -> AsyncGenerator[Origin]:
        """`past`: for a sandbox that goes back to it, and keeps the CPUs that it has now.

        Raises ImageNotFound, NotFound, InvalidArgument, SnapshotCorrupt, SnapshotIncompatible."""
        if spec.snapshot is None:
            yield self._of_image(self._machine.images.get(spec.image), spec.limits)
            return
        async with self._machine.snapshots.opened(spec.snapshot) as (manifest, folder):
            self._fit(manifest, None if past else spec.limits)
            if manifest.draft.kind is SnapshotKind.MEMORY:
                origin = self._of_memory(manifest.draft, folder)
            else:
                origin = await self._of_files(manifest, folder)
            yield replace(origin, past=past or origin.past)

    async def template(self, spec: SandboxSpec) -> bool:
        """Makes the template of the spec's image if there is none. False where it cannot be had."""
        if spec.snapshot is not None:
            return True
        image = self._machine.images.get(spec.image)
        return await self._templates.want(image, self._booting(image), spec.limits) is not None

    def _of_image(self, image: ImageEntry, limits: Limits) -> Origin:
        origin = self._booting(image)
        if (checkpoint := self._templates.find(image, limits)) is not None:
            return replace(origin, checkpoint=checkpoint, limits=limits)
        return origin

    def _booting(self, image: ImageEntry) -> Origin:
        machine = self._machine
        return Origin(f"image:{image.key}", image, image.path, image.key, machine.build, machine.runtime)

    def _of_memory(self, draft: Draft, folder: Path) -> Origin:
        image = self._image_of(draft)
        return Origin(
            f"snapshot:{draft.id}",
            image,
            image.path,
            draft.image_key,
            draft.build,
            self._runtime_of(draft),
            checkpoint=folder,
            parent=draft.id,
            past=not draft.template,
            limits=draft.spec.limits,
            processors=draft.processors,
        )

    async def _of_files(self, manifest: Manifest, folder: Path) -> Origin:
        machine, draft = self._machine, manifest.draft
        image = self._image_of(draft)
        root = await machine.filesystems.root_of(manifest, folder)
        return Origin(
            f"snapshot:{draft.id}",
            image,
            root.image,
            root.key,
            machine.build,
            machine.runtime,
            upper=root.upper,
            parent=draft.id,
        )

    def _image_of(self, draft: Draft) -> ImageEntry:
        try:
            return self._machine.kept.image(draft.image_key, draft.spec.image)
        except NotFound as error:
            raise SnapshotIncompatible(f"{draft.id} stands on an image that is not here: {error.message}") from error

    def _runtime_of(self, draft: Draft) -> GuestRuntime:
        try:
            self._machine.kept.check_build(draft.build)
            return self._machine.kept.runtime(draft.runtime)
        except NotFound as error:
            raise SnapshotIncompatible(
                f"{draft.id} was made by an engine or a guest runtime that is not here: {error.message}",
                hint="a filesystem snapshot starts with any engine",
            ) from error

    def _fit(self, manifest: Manifest, limits: Limits | None) -> None:
        """Whether it can go on here, and with these limits (None: with any)."""
        draft, machine = manifest.draft, self._machine
        if draft.kind is SnapshotKind.DIRECTORY:
            raise InvalidArgument(
                f"{draft.id} is the snapshot of a directory", hint="mount it into a sandbox instead: sandbox.mount(…)"
            )
        if draft.kind is not SnapshotKind.MEMORY:
            return
        here = machine.engine.platform
        if draft.engine != machine.engine.name or draft.platform != here:
            raise SnapshotIncompatible(
                f"{draft.id} was taken on {draft.engine} {draft.platform}, this machine is {here}"
            )
        if missing := sorted(set(draft.cpu) - set(self._processor)):
            raise SnapshotIncompatible(
                f"{draft.id} was taken on a processor with {', '.join(missing[:8])}, which this one lacks",
                hint="a filesystem snapshot starts on any machine",
            )
        if limits is not None and not fits(limits, draft.spec.limits, draft.processors):
            seen = draft.processors or shown_cpus(draft.spec.limits)
            raise InvalidArgument(
                f"what goes on from {draft.id} sees {seen} processors, not {limits.cpus:g}",
                hint="cpu can be changed within the same whole number",
            )


def _fitted(draft: Draft, limits: Limits) -> Limits:
    return replace(limits, disk=draft.spec.limits.disk)
