"""The template: a sandbox that was made ready once, and from which others go on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from belljar.model.errors import InvalidArgument
from belljar.model.sandbox import DEFAULT_IMAGE, Limits, check_env, check_labels, check_name

__all__ = ("MAX_READY_SECONDS", "Ready", "Template", "TemplateSpec")

MAX_READY_SECONDS = 3600.0
_MAX_TEXT = 4096
_MAX_COMMAND = 64 << 10


@dataclass(frozen=True, slots=True)
class Ready:
    """When a template is taken: when the one thing named is so, looked at from inside the sandbox.

    `port`: something listens there on loopback. `url`: an address on loopback answers 2xx or 3xx. `file`: the path is there.
    `process`: one of this name runs. `command`: ends with 0 in ``/bin/sh -c``. Nothing named: the start command has ended with 0.
    It is looked at every `interval` seconds; after `timeout` seconds the template has failed.
    """

    port: int | None = None
    url: str | None = None
    file: str | None = None
    process: str | None = None
    command: str | None = None
    timeout: float = 60.0
    interval: float = 0.1

    def __post_init__(self) -> None:
        named = [name for name in ("port", "url", "file", "process", "command") if getattr(self, name) is not None]
        if len(named) > 1:
            raise InvalidArgument(f"a ready check looks at one thing, not at {' and '.join(named)}")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise InvalidArgument(f"a port lies between 1 and 65535, not {self.port}")
        for name in ("url", "file", "process", "command"):
            value: str | None = getattr(self, name)
            if value is not None and (not value or "\0" in value or len(value) > _MAX_TEXT):
                raise InvalidArgument(f"{name} of a ready check is text of 1 to {_MAX_TEXT} characters without NUL")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise InvalidArgument("url of a ready check starts with http:// or https://")
        if self.file is not None and not self.file.startswith("/"):
            raise InvalidArgument("file of a ready check is an absolute path")
        if not 0 < self.timeout <= MAX_READY_SECONDS:
            raise InvalidArgument(f"timeout of a ready check lies between 0 and {MAX_READY_SECONDS:.0f} seconds")
        if not 0.01 <= self.interval <= 60:
            raise InvalidArgument("interval of a ready check lies between 0.01 and 60 seconds")

    @property
    def what(self) -> str:
        """For people, such as ``port 8000``; empty when it waits for the start command's end."""
        for name in ("port", "url", "file", "process", "command"):
            if (value := getattr(self, name)) is not None:
                return f"{name} {str(value)[:80]}"
        return ""


@dataclass(frozen=True, slots=True)
class TemplateSpec:
    """The recipe. `command` goes to ``/bin/sh -c`` and may go on running: it then runs in each sandbox that is made from it."""

    name: str
    image: str = DEFAULT_IMAGE
    command: str | None = None
    ready: Ready = field(default_factory=Ready)
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    workdir: str | None = None
    user: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        check_env(self.env)
        check_labels(self.labels)
        if self.command is not None and (not self.command or "\0" in self.command or len(self.command) > _MAX_COMMAND):
            raise InvalidArgument(f"command is text of 1 to {_MAX_COMMAND >> 10} Ki characters without NUL")
        if self.command is None and self.ready.what == "" and self.ready != Ready():
            raise InvalidArgument("without a command there is nothing whose end could be waited for")

    def digest(self) -> str:
        """Equal for recipes that make the same: all but the labels, and how long one waits."""
        said = asdict(self)
        del said["labels"], said["ready"]["timeout"], said["ready"]["interval"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Template:
    """One that is there, or is being made. `snapshot`: what sandboxes go on from; None until it is durable.

    `step` and `output`: what is being done now, and the last words of the command, while it is being made. `size` and `stored`
    in bytes, as of the snapshot. `created` in seconds since 1970.
    """

    id: str
    spec: TemplateSpec
    created: float
    snapshot: str | None = None
    size: int = 0
    stored: int = 0
    step: str = ""
    output: str = ""
