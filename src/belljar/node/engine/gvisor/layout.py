"""Where an instance's things are on the host: its folder, and its entries in the engine's root."""

import json
import re
from pathlib import Path

from belljar.base.files import remove_tree
from belljar.base.mounts import unmount_below
from belljar.node.engine.api import InstanceSpec
from belljar.node.engine.gvisor.mounts import make_carrier
from belljar.node.engine.gvisor.ready import make_ready
from belljar.node.engine.gvisor.spec import oci_spec
from belljar.node.engine.pipes import make_pipes, remove_pipes

__all__ = (
    "BUNDLE",
    "CARRIER",
    "PANIC",
    "PAUSED",
    "READY",
    "SAVING",
    "make_files",
    "panic_text",
    "ready_files",
    "remove_files",
    "remove_state",
    "root_of",
    "socket_of",
    "state_file",
)

BUNDLE, PANIC, PAUSED, SAVING = "bundle", "panic.log", "paused", "saving"
READY = "files"
CARRIER = "vol"
"""The folder through which volumes come and go: a mount of its own."""


def root_of(roots: Path, build: str) -> Path:
    """The engine root of a build: one for each, so that no runsc reads another one's state; short, for socket paths."""
    return roots / (re.sub(r"[^a-z0-9]", "", build.lower())[:12] or "x")


def socket_of(root: Path, id: str) -> Path:
    return root / f"runsc-{id}.sock"


def state_file(root: Path, id: str) -> Path:
    return root / f"{id}_sandbox:{id}.state"


def make_files(spec: InstanceSpec, root: Path) -> None:
    """All that `runsc create` needs. Repeating is fine. Raises OSError."""
    bundle, carrier = spec.folder / BUNDLE, spec.folder / CARRIER
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in (bundle, bundle / "rootfs", carrier, spec.overlay):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    make_pipes(spec.folder)
    make_carrier(carrier)
    if spec.upper is not None and not spec.upper.is_dir():
        remove_tree(spec.overlay / READY)
        make_ready(spec.upper, spec.overlay / READY)
    config = oci_spec(spec, root=bundle / "rootfs", carrier=carrier)
    (bundle / "config.json").write_text(json.dumps(config))


def ready_files(spec: InstanceSpec) -> Path:
    """Where the files lie that the guest boots with: as they were given, or made ready for this guest alone."""
    assert spec.upper is not None
    return spec.upper if spec.upper.is_dir() else spec.overlay / READY


def remove_files(spec: InstanceSpec, roots: Path) -> None:
    """All of an instance whose processes are gone; its folder itself belongs to the caller. Raises OSError."""
    unmount_below(spec.folder / CARRIER)
    for name in (CARRIER, BUNDLE, PANIC, PAUSED, SAVING):
        remove_tree(spec.folder / name)
    remove_pipes(spec.folder)
    remove_tree(spec.overlay)
    for root in roots.glob("*"):
        remove_state(root, spec.id)


def remove_state(root: Path, id: str) -> None:
    """What runsc wrote down. Its own delete does just that once the processes are gone, 14 ms slower."""
    for file in (socket_of(root, id), state_file(root, id), root / f"{id}_sandbox:{id}.lock"):
        file.unlink(missing_ok=True)


def panic_text(folder: Path) -> str:
    """The start of the kernel's last words, if it panicked: the first lines say most."""
    try:
        with open(folder / PANIC, "rb") as stream:
            text = stream.read(64 << 10).decode(errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[:3])[:600]
