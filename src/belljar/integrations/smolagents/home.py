"""The executor's sandbox and kernel: made when they are first needed, made again when they are gone, given back at the end."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import belljar
from belljar.base.ids import is_id
from belljar.integrations.smolagents.inside.codec import Limits
from belljar.integrations.smolagents.lease import Lease
from belljar.integrations.smolagents.packages import distribution_of
from belljar.integrations.smolagents.session import Session
from belljar.integrations.smolagents.settings import Settings

__all__ = ("CONTEXT", "LABELS", "Home", "PackagesMissing", "Place")

LABELS = {"made-by": "smolagents"}
CONTEXT = "belljar-context"
"""Label of a snapshot: the context in it that an executor's code ran in."""
_PIP_SECONDS = 900.0
_TAIL = 3000
_USUAL: dict[str, Any] = {"cpu": 1.0, "memory": "2GiB", "disk": "10GiB"}


class PackagesMissing(Exception):
    """pip could not install what the agent was promised."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a home's code runs at one moment. `sandbox` is its id; `installed`: what the settings ask for is."""

    sandbox: str | None
    context: "belljar.Context | None"
    session: Session | None
    installed: bool


class Home:
    """`given` is a sandbox that somebody else made and ends; without one an own one is made from `settings`."""

    def __init__(
        self,
        settings: Settings,
        given: "belljar.Sandbox | None",
        imports: list[str],
        say: Callable[[str], Any],
    ) -> None:
        self._settings = settings
        self._sandbox = given
        self._owned = given is None and (settings.sandbox is None or settings.snapshot is not None)
        self._imports = imports
        self._say = say
        self._lease: Lease | None = None
        self._context: belljar.Context | None = None
        self._session: Session | None = None
        self._installed = not settings.packages

    @property
    def sandbox(self) -> "belljar.Sandbox":
        """Starts or finds it if that has not been done. Raises belljar.Error."""
        if self._sandbox is not None:
            return self._sandbox
        if not self._owned:
            assert self._settings.sandbox is not None
            self._sandbox = belljar.Sandbox.get(self._settings.sandbox)
            return self._sandbox
        origin = belljar.Snapshot.get(self._settings.snapshot) if self._settings.snapshot is not None else None
        made = self._create(origin, self._settings.name)
        installed = not self._settings.packages
        self._own(made, lambda: Place(made.id, _context_in(made, origin, self._settings.user), None, installed))
        return made

    @property
    def place(self) -> Place:
        id = self._sandbox.id if self._sandbox is not None else None
        return Place(id, self._context, self._session, self._installed)

    def go_back(self, snapshot: "belljar.Snapshot", place: Place) -> Place:
        """Its sandbox goes back to a snapshot of it, and its code to `place`, which is as it was then.

        Where an own sandbox has ended a new one goes on from there. Raises belljar.Error; then it is as before.
        """
        sandbox = self._sandbox
        if sandbox is not None or not self._owned:
            sandbox = self.sandbox
            try:
                sandbox.rollback(snapshot)
                self._stand(_moved(sandbox, snapshot, place))
                return self.place
            except belljar.NotFound:
                if not self._owned:
                    raise
            except belljar.Error:
                raise
            except BaseException:
                # Whether it went back is not known. A context of its own works in either case.
                self._stand(Place(sandbox.id, None, None, place.installed))
                raise
        made = self._create(snapshot, None)
        self._own(made, lambda: _moved(made, snapshot, place))
        return self.place

    def fork(
        self, settings: Settings, snapshot: "belljar.Snapshot | None", place: Place | None, say: Callable[[str], Any]
    ) -> "Home":
        """Another one in an own sandbox, which goes on from a snapshot of this one's; then `place` is as of that moment.

        Without one it goes on from now.
        """
        home = Home(settings, None, self._imports, say)
        if snapshot is not None and place is not None:
            made = home._create(snapshot, None)
        else:
            lifetime = Lease.first(settings.most)
            made = self.sandbox.fork(1, return_exceptions=True, labels=LABELS, lifetime=lifetime)[0]
            if isinstance(made, BaseException):
                raise made
        before = place or self.place
        home._own(made, lambda: _moved(made, snapshot, before))
        return home

    @property
    def context(self) -> "belljar.Context | None":
        return self._context

    def session(self) -> Session:
        """The one that is there if its kernel lives, else a new one.

        Raises belljar.Error, SessionFailed, PackagesMissing.
        """
        if self._session is None or not self._still(self._session):
            self._session = None
            self._session = self._begin()
        return self._session

    def lost(self) -> None:
        """The kernel is gone: whatever needs one next gets a new one."""
        self._session = None

    def close(self) -> None:
        """Ends what it made; idempotent, also when little or nothing was made."""
        context, self._context, self._session = self._context, None, None
        if self._lease is not None:
            lease, self._lease = self._lease, None
            self._sandbox = None
            lease.release()
        elif context is not None:
            with contextlib.suppress(
                belljar.Error
            ):  # its sandbox ended, or the server is gone: nothing of ours is left there
                context.close()

    def _create(self, origin: "belljar.Snapshot | None", name: str | None) -> "belljar.Sandbox":
        made = self._settings
        sizes = {"cpu": made.cpu, "memory": made.memory, "disk": made.disk}
        options: dict[str, Any] = {size: value for size, value in sizes.items() if value is not None}
        if origin is None:
            self._say(f"Starting a sandbox from the image {made.image}")
            home = f"/home/{made.user}" if made.user == "user" else None
            options = _USUAL | options | {"user": made.user, "workdir": home}
        else:
            self._say(f"Starting a sandbox from the snapshot {origin.name or origin.id}")
        return belljar.Sandbox.create(
            origin or made.image,
            name=name,
            env=made.env,
            network=made.network,
            labels=LABELS,
            lifetime=Lease.first(made.most),
            **options,
        )

    def _own(self, sandbox: "belljar.Sandbox", place: Callable[[], Place]) -> None:
        """In the place of the one before, if there is one. When `place` raises, the new one ends instead."""
        lease = Lease(sandbox, self, most=self._settings.most)
        try:
            found = place()
        except BaseException:
            lease.release()
            raise
        if self._lease is not None:
            self._lease.release()
        self._sandbox, self._lease = sandbox, lease
        self._stand(found)

    def _stand(self, place: Place) -> None:
        self._context, self._session, self._installed = place.context, place.session, place.installed

    def _still(self, session: Session) -> bool:
        try:
            return session.lives
        except belljar.NotFound:
            if self._owned:
                self._forget()
            else:
                self._context = None
            return False

    def _forget(self) -> None:
        """The own sandbox has ended (its lifetime, out of memory): the next step gets a new one."""
        self._context = None
        self._sandbox = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        self._installed = not self._settings.packages

    def _begin(self) -> Session:
        sandbox = self.sandbox
        if self._context is None:
            env = dict(self._settings.env) if not self._owned else None
            self._context = sandbox.create_context(env=env, user=self._settings.user)
        session = Session(sandbox, self._context, self._imports, Limits())
        wanted = [distribution_of(name) for name in session.missing]
        if not self._installed:
            wanted = [*self._settings.packages, *wanted]
        if wanted:
            self._install(session, wanted)
            self._installed = True
        return session

    def _install(self, session: Session, wanted: list[str]) -> None:
        self._say(f"Installing {', '.join(wanted)}")
        where = ["--user", "--break-system-packages"] if session.user_site and self._settings.user != "root" else []
        if session.user_site and not where:
            where = ["--break-system-packages", "--root-user-action=ignore"]
        words = [session.python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", *where]
        try:
            done = session.sandbox.run([*words, "--", *wanted], user=self._settings.user, timeout=_PIP_SECONDS)
        except belljar.ProcessTimeout as error:
            raise PackagesMissing(
                f"pip did not end within {_PIP_SECONDS:g} s: {str(error.stderr or '')[-_TAIL:]}"
            ) from None
        said = f"{done.stdout}{done.stderr}".strip()
        session.renew()
        if done.returncode != 0:
            raise PackagesMissing(f"pip install {' '.join(wanted)} failed:\n{said[-_TAIL:]}")
        if session.missing:
            raise PackagesMissing(
                f"pip installed {', '.join(wanted)}, but there is still no {', '.join(session.missing)} to import"
            )


def _moved(sandbox: "belljar.Sandbox", snapshot: "belljar.Snapshot | None", place: Place) -> Place:
    """The same place, after the snapshot (None: after this moment) has become `sandbox`. Raises belljar.Error."""
    if snapshot is not None and snapshot.kind != "memory":  # no process of that time runs
        return Place(sandbox.id, None, None, place.installed)
    if place.sandbox == sandbox.id:
        return place
    context = _context_of(sandbox, place.context.id) if place.context is not None else None
    session = place.session.moved(sandbox, context) if place.session is not None and context is not None else None
    return Place(sandbox.id, context, session, place.installed)


def _context_in(
    sandbox: "belljar.Sandbox", origin: "belljar.Snapshot | None", user: str | None
) -> "belljar.Context | None":
    """Where the code of the executor whose sandbox was snapshotted ran, if it is certain which context that was."""
    if origin is None or origin.kind != "memory":
        return None
    if (id := origin.labels.get(CONTEXT)) is not None:
        return _context_of(sandbox, id)
    found = [one for one in sandbox.contexts() if is_id(one.id, "cx") and one.language == "python"]
    found = [one for one in found if one.info().user == user]
    return found[0] if len(found) == 1 else None


def _context_of(sandbox: "belljar.Sandbox", id: str) -> "belljar.Context | None":
    return next((context for context in sandbox.contexts() if context.id == id), None)
