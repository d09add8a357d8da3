"""A manifest as bytes: checked by a digest or a key, and legal, whoever reads it."""

import base64
import json
import math
import re
from typing import Any

from blake3 import blake3
from pydantic import TypeAdapter, ValidationError

from belljar.base.ids import is_id
from belljar.model.errors import InvalidArgument, SnapshotCorrupt
from belljar.model.snapshot import PREFIX
from belljar.node.snapshot.manifest import VERSION, Manifest
from belljar.node.snapshot.shelf import MAX_FILES, check_file_name
from belljar.node.storage.keys import Key, Keys

__all__ = ("NO_KEYS", "check_manifest", "key_of", "manifest_bytes", "manifest_text", "parse_manifest", "read_manifest")

NO_KEYS = Keys()
_FORM = TypeAdapter(Manifest)
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+:-]{0,127}")
_MAX_SIZE = 1 << 44
_MAX_CPU = 1000
_MAX_MOUNTS = 1000


def manifest_bytes(manifest: Manifest, key: Key | None = None) -> bytes:
    """JSON with the manifest's own JSON as text and its BLAKE3; with a key, sealed with it."""
    body = manifest_text(manifest)
    if key is None:
        return json.dumps({"manifest": body, "digest": _digest(body)}).encode()
    sealed = key.seal(body.encode(), _about(manifest.draft.id))
    return json.dumps({"key": key.id, "sealed": base64.b64encode(sealed).decode()}).encode()


def read_manifest(data: bytes, id: str, keys: Keys = NO_KEYS) -> Manifest:
    """Raises SnapshotCorrupt for one that is torn, changed, foreign, not legal, or sealed with a key that is not here."""
    try:
        said: dict[str, Any] = json.loads(data)
        if (key := keys.find(said.get("key"))) is not None:
            body = key.unseal(base64.b64decode(said["sealed"], validate=True), _about(id)).decode()
        else:
            body = str(said["manifest"])
            if said["digest"] != _digest(body):
                raise SnapshotCorrupt("its manifest was changed: the digest differs")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotCorrupt("its manifest is torn") from error
    manifest = parse_manifest(body)
    if manifest.draft.id != id:
        raise SnapshotCorrupt(f"its manifest is that of {manifest.draft.id[:40]!r}")
    return manifest


def key_of(data: bytes) -> str | None:
    """The id of the key that a manifest that was read, and so the files beside it, are sealed with."""
    return json.loads(data).get("key")


def manifest_text(manifest: Manifest) -> str:
    return _FORM.dump_json(manifest).decode()


def parse_manifest(text: str | bytes) -> Manifest:
    """Raises SnapshotCorrupt for one that no Belljar writes."""
    try:
        manifest = _FORM.validate_json(text)
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise SnapshotCorrupt(f"its manifest is not legal: {where[:300]}") from error
    except InvalidArgument as error:
        raise SnapshotCorrupt(f"its manifest is not legal: {error.message}") from error
    return check_manifest(manifest)


def check_manifest(manifest: Manifest) -> Manifest:
    """Raises SnapshotCorrupt for values that no Belljar writes. Whether it fits here is another question."""
    draft = manifest.draft
    if manifest.version != VERSION:
        raise SnapshotCorrupt(f"the manifest has version {manifest.version}, this Belljar reads {VERSION}")
    if not is_id(draft.id, PREFIX):
        raise SnapshotCorrupt(f"not the id of a snapshot: {draft.id[:80]!r}")
    if not 1 <= len(manifest.files) <= MAX_FILES:
        raise SnapshotCorrupt(f"a snapshot has 1 to {MAX_FILES} files, not {len(manifest.files)}")
    for name, entry in manifest.files.items():
        check_file_name(name)
        if (
            not 0 <= entry.size <= _MAX_SIZE
            or len(entry.digest) != 64
            or not set(entry.digest) <= set("0123456789abcdef")
        ):
            raise SnapshotCorrupt(f"the manifest's size or digest of {name} is not legal")
    # These become names of folders here: of artifacts, and below a carrier mount.
    for name, value in (("image_key", draft.image_key), ("build", draft.build), ("runtime", draft.runtime)):
        if not _KEY.fullmatch(value):
            raise SnapshotCorrupt(f"the manifest's {name} is not legal: {value[:80]!r}")
    if len(draft.mounts) > _MAX_MOUNTS or not all(_KEY.fullmatch(name) for name in draft.mounts):
        raise SnapshotCorrupt("the manifest's mounts are not legal")
    words = (draft.engine, draft.platform, draft.sandbox, *draft.cpu)
    if len(draft.cpu) > _MAX_CPU or not all(_WORD.fullmatch(word) for word in words):
        raise SnapshotCorrupt("the manifest's engine, platform, sandbox or cpu is not legal")
    if draft.path is not None and (not draft.path.startswith("/") or "\0" in draft.path or len(draft.path) > 4096):
        raise SnapshotCorrupt("the manifest's path is not legal")
    if draft.parent is not None and not is_id(draft.parent, PREFIX):
        raise SnapshotCorrupt("the manifest's parent is not the id of a snapshot")
    if not (math.isfinite(draft.created) and math.isfinite(draft.paused) and draft.paused >= 0):
        raise SnapshotCorrupt("the manifest's times are not legal")
    return manifest


def _about(id: str) -> bytes:
    return f"{id}/".encode()


def _digest(body: str) -> str:
    return blake3(body.encode()).hexdigest()
