"""What an operator has in the state directory beside the server's own: settings and secrets."""

import re
import tomllib
from pathlib import Path

from belljar.model.errors import InvalidArgument
from belljar.server.settings import CONFIG_FILE, Settings

__all__ = ("STORE_KEY", "key_file", "state_files")

_KEY = "key"
STORE_KEY = "store.key"
"""Where a restore puts the keys of snapshots, wherever they came from."""
_LINE = r"^\s*{}\s*=.*$"
_MOST = 1 << 20


def key_file(home: Path) -> Path:
    """Where the first key is written, for its owner alone."""
    return home / _KEY


def state_files(home: Path, settings: Settings, with_keys: bool) -> dict[str, bytes]:
    """For a backup: name → content. Without `with_keys` nothing in them is secret. Blocks. Raises InvalidArgument."""
    found: dict[str, bytes] = {}
    if (config := _read(home / CONFIG_FILE)) is not None:
        # The store is in the backup: whoever restores it must not come upon the one it was copied from.
        out = ("database",) if with_keys else ("database", "store_key")
        found[CONFIG_FILE] = _without(config, out, home / CONFIG_FILE)
    if not with_keys:
        return found
    if (first := _read(key_file(home))) is not None:
        found[_KEY] = first
    if settings.store_key_file is not None:
        if (keys := _read(settings.store_key_file)) is None:
            raise InvalidArgument(f"the key file {settings.store_key_file} is gone")
        found[STORE_KEY] = keys
    elif settings.store_key is not None:
        found[STORE_KEY] = settings.store_key.get_secret_value().encode() + b"\n"
    return found


def _read(file: Path) -> bytes | None:
    try:
        with open(file, "rb") as opened:
            data = opened.read(_MOST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArgument(f"{file} cannot be read: {error.strerror}") from error
    if len(data) > _MOST:
        raise InvalidArgument(f"{file} is longer than {_MOST >> 20} MiB")
    return data


def _without(config: bytes, names: tuple[str, ...], file: Path) -> bytes:
    text = config.decode(errors="replace")
    try:
        there = [name for name in names if name in tomllib.loads(text)]
    except tomllib.TOMLDecodeError:
        there = list(names)
    for name in there:
        text = re.sub(_LINE.format(name), f"# {name} was left out of the backup", text, flags=re.MULTILINE)
    try:
        if not there or not set(there) & tomllib.loads(text).keys():
            return text.encode() if there else config
    except tomllib.TOMLDecodeError:
        pass  # perhaps the line was part of a text of several lines
    raise InvalidArgument(
        f"{file} holds what cannot be told from the rest: {', '.join(there)}",
        hint="move it to a file (store_key_file) or into the environment (BELLJAR_DATABASE), or ask for the keys as well",
    )
