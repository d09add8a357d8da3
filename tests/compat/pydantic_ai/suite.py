"""Pydantic AI's own suite for workspace backends, all its rules, against Belljar's."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic_ai.workspaces import WorkspaceBackend, WorkspaceRef
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from belljar.integrations.pydantic_ai import BelljarOptions, BelljarWorkspaceBackend

OPTIONS = BelljarOptions(user="user")
"""Not root: to root no file is closed, and a rule is about closed ones."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[BelljarWorkspaceBackend]:
    backend = BelljarWorkspaceBackend(options=OPTIONS)
    yield backend
    await backend.terminate()


class TestBelljarWorkspaceBackend(WorkspaceBackendSuite):
    @pytest.fixture
    def backend(self, shared: BelljarWorkspaceBackend) -> WorkspaceBackend:
        return shared

    @pytest.fixture
    async def fresh_backend(self) -> AsyncIterator[Callable[[], WorkspaceBackend]]:
        made: list[BelljarWorkspaceBackend] = []

        def make() -> WorkspaceBackend:
            made.append(BelljarWorkspaceBackend(options=OPTIONS))
            return made[-1]

        yield make
        for backend in made:
            await backend.terminate()

    @pytest.fixture
    def attach_backend(self) -> Callable[[WorkspaceRef], WorkspaceBackend]:
        return BelljarWorkspaceBackend

    @pytest.fixture
    def destroy_environment(self) -> Callable[[WorkspaceBackend], Awaitable[None]]:
        async def destroy(backend: WorkspaceBackend) -> None:
            assert isinstance(backend, BelljarWorkspaceBackend)
            await backend.terminate()

        return destroy
