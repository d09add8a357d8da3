# Made by scripts/make_sync.py from _async/template.py: do not edit.
"""The template, as its owner holds it."""

import builtins
from collections.abc import Callable, Mapping
from typing import Any, Self

from belljar.base.units import Size
from belljar.model.errors import Error
from belljar.model.sandbox import DEFAULT_IMAGE
from belljar.sdk._sync import flow
from belljar.sdk._sync.link import Link, shared_link
from belljar.sdk.answers import template_of
from belljar.sdk.asking import duration_of, template_body, url
from belljar.sdk.kept import Ready, TemplateInfo
from belljar.sdk.pure import path_text

__all__ = ("Template",)
_SPARE_SECONDS = 900.0
_READY_SECONDS = 60.0
_LOOK_SECONDS = 0.5


class Template:
    """A sandbox made ready once, its memory kept: what is made from it goes on with all that ran in it.

    >>> web = Template.create("web", command="exec python3 -m http.server 8000", ready=belljar.Ready(port=8000))
    >>> with Sandbox.create(image=web) as sandbox:
    ...     print(sandbox.run("curl -s localhost:8000").stdout)
    """

    def __init__(self, link: Link, info: TemplateInfo) -> None:
        """Not for users."""
        self._link = link
        self._info = info

    @classmethod
    def create(
        cls,
        name: str,
        *,
        image: str = DEFAULT_IMAGE,
        command: str | None = None,
        ready: Ready | None = None,
        cpu: float = 1.0,
        memory: Size = "1GiB",
        disk: Size = "10GiB",
        pids: int = 1024,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        replace: bool = False,
        on_progress: Callable[[TemplateInfo], Any] | None = None,
    ) -> Self:
        """Returns when sandboxes can start from it. The same recipe again gives the template that is there.

        A sandbox is made from `image` (or another template) with what is given, `command` is started in it (``/bin/sh -c``), and
        when it is `ready` its memory is kept and it ends. Without `ready` the command must end with 0 within a minute. `replace`:
        made anew, in the place of the one with this name. `on_progress` is told twice a second how far it is.
        Raises TemplateFailed (with the last words of command and check), AlreadyExists (another recipe).
        """
        link = shared_link()
        body = template_body(
            name=name,
            image=image,
            command=command,
            ready=ready,
            cpu=cpu,
            memory=memory,
            disk=disk,
            pids=pids,
            env=env,
            labels=labels,
            workdir=workdir,
            user=user,
            replace=replace,
        )
        seconds = (duration_of(ready.timeout) if ready else None) or _READY_SECONDS
        watch = None if on_progress is None else flow.Worker(_watch, link, name, on_progress, delay=_LOOK_SECONDS)
        try:
            answer = link.call("POST", url("templates"), json=body, timeout=seconds + _SPARE_SECONDS)
        finally:
            if watch is not None:
                watch.stop()
        return cls(link, template_of(answer))

    @classmethod
    def get(cls, name: str) -> Self:
        """Also one that is being made. Raises NotFound."""
        link = shared_link()
        return cls(link, template_of(link.call("GET", url("templates", path_text(name)))))

    @classmethod
    def list(cls) -> builtins.list[Self]:
        """In the order of their names."""
        link = shared_link()
        return [cls(link, template_of(item)) for item in link.call("GET", url("templates"))["items"]]

    @property
    def name(self) -> str:
        return self._info.name

    @property
    def snapshot(self) -> str | None:
        """The id of the snapshot that sandboxes go on from; None while it is made for the first time."""
        return self._info.snapshot

    @property
    def last_info(self) -> TemplateInfo:
        """All of it, as last seen."""
        return self._info

    def info(self) -> TemplateInfo:
        """All that the server knows of it now. Raises NotFound."""
        self._info = template_of(self._link.call("GET", url("templates", self.name)))
        return self._info

    def delete(self) -> None:
        """With its snapshot; what was made from it goes on. One that is being made is given up."""
        self._link.call("DELETE", url("templates", self.name), timeout=_SPARE_SECONDS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.snapshot or 'being made'}>"


def _watch(link: Link, name: str, told: Callable[[TemplateInfo], Any]) -> None:
    """Until it is stopped, or it is made."""
    while True:
        try:
            info = template_of(link.call("GET", url("templates", name)))
        except Error:
            return
        if not info.step:
            return
        flow.call(told, info)
        flow.sleep(_LOOK_SECONDS)
