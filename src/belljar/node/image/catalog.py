"""The images of one state directory: names, and the content each name stands for now."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote

from belljar.base.files import write_atomic
from belljar.model.errors import ImageNotFound, NotFound
from belljar.node.artifacts import Artifact, Store, state_store
from belljar.node.image.ref import check_image_name

__all__ = ("CONFIG", "IMAGE_FILE", "KIND", "Catalog", "Image")

KIND = "image"
IMAGE_FILE = "image.erofs"
CONFIG = "image.json"


@dataclass(frozen=True, slots=True)
class Image:
    """`path` is the EROFS file; `digest` is ``sha256:`` of it; `size` in bytes; `created` in seconds since 1970."""

    name: str
    key: str
    digest: str
    path: Path
    size: int
    created: float
    env: Mapping[str, str]
    user: str
    workdir: str


class Catalog:
    """Looked up several times on every create: one small file, and what its artifact was when it was looked through."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "images"
        self._store = state_store(home)
        self._known: dict[str, Image] = {}
        """By key."""

    @property
    def store(self) -> Store:
        return self._store

    def get(self, name: str) -> Image:
        """Raises InvalidArgument for what cannot be a name, ImageNotFound (with those that exist) for an unknown one."""
        check_image_name(name)
        found = self._find(name)
        if found is not None:
            return found
        raise _not_found(name, self.names())

    def keyed(self, key: str, name: str) -> Image:
        """The image with this content, whatever `name` stands for by now. Raises NotFound."""
        image = self._image(name, key)
        if image is None:
            raise NotFound(f"the content {key[:40]!r} of image {name[:80]!r}")
        return image

    def list(self) -> tuple[Image, ...]:
        """In the order of their names."""
        return tuple(image for name in self.names() if (image := self._find(name)) is not None)

    def names(self) -> tuple[str, ...]:
        if not self._folder.is_dir():
            return ()
        return tuple(
            sorted(unquote(path.stem) for path in self._folder.glob("*.json") if not path.name.startswith("."))
        )

    async def put(self, name: str, artifact: Artifact) -> Image:
        """Lets `name` stand for this content from now on; sandboxes that started from the former one keep it."""
        check_image_name(name)
        kept = await self._store.adopt(artifact)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(self._file(name), json.dumps({"key": kept.key}).encode())
        return self.get(name)

    def _file(self, name: str) -> Path:
        return self._folder / f"{quote(name, safe='')}.json"

    def _find(self, name: str) -> Image | None:
        try:
            key = json.loads(self._file(name).read_bytes())["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self._image(name, key)

    def _image(self, name: str, key: str) -> Image | None:
        """None as well where a file of it is gone or shorter."""
        try:
            if (known := self._known.get(key)) is not None and known.path.stat().st_size == known.size:
                return replace(known, name=name)
            if not re.fullmatch("[0-9a-f]{8,64}", key) or (artifact := self._store.get(KIND, key)) is None:
                return None
            config = json.loads((artifact.folder / CONFIG).read_bytes())
            record = artifact.files[IMAGE_FILE]
            image = self._known[key] = Image(
                name=name,
                key=key,
                digest=f"sha256:{record.digest}",
                path=artifact.folder / IMAGE_FILE,
                size=record.size,
                created=artifact.created,
                env=dict(config["env"]),
                user=str(config["user"]),
                workdir=str(config["workdir"]),
            )
            return image
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _not_found(name: str, names: tuple[str, ...]) -> ImageNotFound:
    if not names:
        return ImageNotFound(f"there is no image {name}, nor any other yet", hint="belljar setup")
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    return ImageNotFound(f"there is no image {name}", hint=f"{meant}images here: {', '.join(names[:20])}")
