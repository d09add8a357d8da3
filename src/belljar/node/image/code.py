"""The image `code`: `base` with what agents' code wants to find: IPython, numpy, pandas, matplotlib, …, and Jupyter kernels."""

import asyncio
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from belljar.base import proc
from belljar.base.tasks import in_thread
from belljar.model.errors import Error
from belljar.node.artifacts import Artifact, Store, key_of
from belljar.node.image.base import BASE_CONFIG
from belljar.node.image.catalog import CONFIG, IMAGE_FILE, KIND
from belljar.node.image.kernels import KERNELS
from belljar.node.image.paths import PATHS, write_paths
from belljar.node.image.tree import flatten, make_folder, put_file, run_inside, unpack
from belljar.node.image.wheels import install_wheels, locked
from belljar.node.progress import Progress, Silent, Step

__all__ = ("CODE_CONFIG", "LOCK", "find_or_build_code")

LOCK = Path(__file__).with_name("code.lock")
CODE_CONFIG = BASE_CONFIG
_ROOM = 2300 << 20
"""Bytes: wheels, the tree, and the image for a moment at once."""
_FONTS = ".cache/matplotlib"


async def find_or_build_code(store: Store, base: Artifact, progress: Progress | None = None) -> Artifact:
    """`code` on this `base`; made if it is not there (about half a minute on two cores).

    Raises Error with the words of the tool that failed.
    """
    progress = progress or Silent()
    recipe = key_of("recipe", {"lock": LOCK.read_text(), "kernels": json.dumps(KERNELS), "edition": "3"})
    inputs = {"name": "code", "recipe": recipe, "base": base.key}

    async def build(folder: Path) -> Mapping[str, str]:
        with progress.step("image code") as step:
            return await _build(folder, base, store.root / "work" / f"code-{key_of(KIND, inputs)}", step)

    return await store.make(
        KIND, inputs, build, room=_ROOM, on_wait=lambda who: progress.found("image code", f"waiting for process {who}")
    )


async def _build(folder: Path, base: Artifact, work: Path, step: Step) -> Mapping[str, str]:
    root = folder / "root"
    date = int(base.facts["date"])
    step.say("unpacking base")
    await unpack(base.folder / IMAGE_FILE, root, json.loads(base.facts["modes"]))
    await install_wheels(root, LOCK, work, step, date=date)
    await in_thread(_add_kernels, root)
    await _find_fonts(root)
    step.say("writing the image")
    await in_thread(write_paths, root, folder / PATHS)
    await flatten(root, folder / IMAGE_FILE, date=date)
    await asyncio.shield(in_thread(shutil.rmtree, root))
    (folder / CONFIG).write_text(json.dumps(CODE_CONFIG, indent=1))
    packages = [line.replace("==", " ") for line in locked(LOCK.read_text())]
    debian = (base.folder / "packages.txt").read_text()
    (folder / "packages.txt").write_text(debian + "".join(f"python:{line}\n" for line in packages))
    return {"packages": str(len(packages)), "date": base.facts["date"], "machine": platform.machine()}


def _add_kernels(root: Path) -> None:
    for name, text in KERNELS.items():
        put_file(root, f"usr/local/share/jupyter/kernels/{name}", text)


async def _find_fonts(root: Path) -> None:
    """matplotlib looks for fonts once per user: done here, the first plot comes a second earlier."""
    try:
        await run_inside(root, ["python3", "-c", "import matplotlib.font_manager"], timeout=120)
    except proc.CommandFailed as error:
        raise Error(f"matplotlib does not work in the image: {error}") from error
    await in_thread(_give_fonts_to_user, root)


def _give_fonts_to_user(root: Path) -> None:
    make_folder(root, f"home/user/{_FONTS}")
    shutil.copytree(root / "root" / _FONTS, root / "home/user" / _FONTS, dirs_exist_ok=True)
    for path in (root / "home/user/.cache", *(root / "home/user/.cache").rglob("*")):
        os.chown(path, 1000, 1000)
