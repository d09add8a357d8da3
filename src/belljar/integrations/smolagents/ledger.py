"""What this side has told its sandbox so far."""

from dataclasses import dataclass, field, replace
from typing import Any

from belljar.integrations.smolagents.files import Artefact, Mount
from belljar.integrations.smolagents.session import Session

__all__ = ("Ledger",)


@dataclass(slots=True)
class Ledger:
    """`session` and `mount`: where variables, tools and files went last. `codes`: of the steps so far. `seen`: the files that the
    user has been told of. `state`: the executor's.
    """

    variables: dict[str, Any] = field(default_factory=dict[str, Any])
    tools: dict[str, Any] | None = None
    new_variables: bool = False
    new_tools: bool = False
    session: Session | None = None
    mount: Mount | None = None
    codes: list[str] = field(default_factory=list[str])
    seen: dict[str, Artefact] = field(default_factory=dict[str, Artefact])
    state: dict[str, Any] = field(default_factory=dict[str, Any])

    def copy(self, session: Session | None) -> "Ledger":
        """As it is now, for the session that this one's has become; None: nothing that was sent is there any more."""
        session = None if self.session is None else session
        return replace(
            self,
            variables=dict(self.variables),
            tools=None if self.tools is None else dict(self.tools),
            session=session,
            mount=None if session is None or self.mount is None else self.mount.copy(session),
            codes=list(self.codes),
            seen=dict(self.seen),
            state=dict(self.state),
        )
