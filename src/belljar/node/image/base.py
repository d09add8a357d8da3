"""The image `base`: Debian 13 with a shell, git, curl, Python, Node, and what people expect at a prompt."""

import asyncio
import json
import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path

from belljar.base.tasks import in_thread
from belljar.node.artifacts import Artifact, Store, key_of
from belljar.node.image.catalog import CONFIG, IMAGE_FILE, KIND
from belljar.node.image.debian import SUITE, debian_tree, installed_packages, mirror_lines
from belljar.node.image.npm import NPM_PACKAGES, unpack_hook
from belljar.node.image.overlay import FILES, FOLDERS, REMOVED
from belljar.node.image.paths import PATHS, write_paths
from belljar.node.image.python import let_pip_replace
from belljar.node.image.tree import flatten, special_modes
from belljar.node.progress import Progress, Silent, Step

__all__ = ("BASE_CONFIG", "find_or_build_base")

PACKAGES = (
    *(
        "adduser",
        "bash",
        "ca-certificates",
        "curl",
        "git",
        "iproute2",
        "less",
        "nano",
        "nodejs",
        "procps",
        "sudo",
        "vim-tiny",
    ),
    *("python3", "python3-pip", "python3-venv", "python-is-python3"),
)
BASE_CONFIG: Mapping[str, object] = {
    "env": {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/home/user/.local/bin",
        "LANG": "C.UTF-8",
    },
    "user": "root",
    "workdir": "/root",
}
_DPKG = (
    # No flush after every file: the whole artifact is written to disk at its end, and in a sandbox it only costs time.
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
_ROOM = 1200 << 20
"""Bytes: packages, the tree, and the image for a moment at once."""
_USER_HOOK = (
    'chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash user && '
    'cp "$1/etc/skel/.bashrc" "$1/root/.bashrc" && ln -s vim.tiny "$1/usr/bin/vim"'
)


async def find_or_build_base(
    store: Store, progress: Progress | None = None, *, refresh: bool = False, environ: Mapping[str, str] = os.environ
) -> Artifact:
    """The newest `base` made by this recipe; made if there is none (under two minutes on two cores), or with `refresh`.

    Raises Error with the words of the tool that failed.
    """
    progress = progress or Silent()
    recipe = _recipe(os.uname().machine)
    if not refresh:
        for artifact in store.list(KIND):
            if artifact.inputs.get("recipe") == recipe and artifact.looks_whole():
                return artifact

    async def build(folder: Path) -> Mapping[str, str]:
        with progress.step("image base") as step:
            return await _build(folder, step, environ)

    # The first edition has no date in its key, so that two set-ups at once make one.
    inputs = {"name": "base", "recipe": recipe}
    if refresh:
        inputs["edition"] = str(uuid.uuid4())
    return await store.make(
        KIND, inputs, build, room=_ROOM, on_wait=lambda who: progress.found("image base", f"waiting for process {who}")
    )


def _recipe(machine: str) -> str:
    """Stands for everything that decides what the image is, the day's package versions left out."""
    parts = {
        "suite": SUITE,
        "machine": machine,
        "packages": " ".join((*PACKAGES, *NPM_PACKAGES)),
        "config": json.dumps(BASE_CONFIG, sort_keys=True),
        "files": json.dumps([[name, mode, text] for name, (mode, text) in FILES.items()]),
        "folders": json.dumps(list(FOLDERS.items())),
        "removed": " ".join(REMOVED),
        "hooks": _USER_HOOK + unpack_hook(),
        "dpkg": "\n".join(_DPKG),
        "edition": "4",
    }
    return key_of("recipe", parts)


async def _build(folder: Path, step: Step, environ: Mapping[str, str]) -> Mapping[str, str]:
    root = folder / "root"
    step.say("fetching and unpacking Debian packages (about a minute)")
    debian = await debian_tree(
        root,
        PACKAGES,
        variant="minbase",
        hooks=(unpack_hook(), _USER_HOOK),
        extra=NPM_PACKAGES,
        dpkg=_DPKG,
        mirror=await mirror_lines(environ),
    )
    step.downloaded(debian.text)
    packages = await in_thread(installed_packages, root)
    await in_thread(_finish, root)
    modes = await in_thread(special_modes, root)
    step.say("writing the image")
    await in_thread(write_paths, root, folder / PATHS)
    await flatten(root, folder / IMAGE_FILE, date=debian.date)
    await asyncio.shield(in_thread(shutil.rmtree, root))
    (folder / CONFIG).write_text(json.dumps(BASE_CONFIG, indent=1))
    (folder / "packages.txt").write_text("\n".join(packages) + "\n")
    return {"packages": str(len(packages)), "date": str(debian.date), "modes": json.dumps(modes)}


def _finish(root: Path) -> None:
    """What the host left in the tree goes, what a sandbox needs comes."""
    for pattern in REMOVED:
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name, mode in FOLDERS.items():
        path = root / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    for name, (mode, text) in FILES.items():
        path = root / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
        if name.startswith("home/user/"):
            os.chown(path, 1000, 1000)
    for path in root.rglob("*"):
        if stat.S_IFMT(path.lstat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            path.unlink()
    let_pip_replace(root / "usr/lib/python3/dist-packages")
