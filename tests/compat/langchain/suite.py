"""LangChain's own tests of sandbox backends, sync and async, against Belljar's."""

from collections.abc import Iterator

import pytest
from deepagents.backends.protocol import SandboxBackendProtocol
from langchain_tests.integration_tests import SandboxIntegrationTests

from belljar.integrations.langchain import BelljarSandbox


class TestBelljarSandbox(SandboxIntegrationTests):
    @pytest.fixture(scope="class")
    def sandbox(self) -> Iterator[SandboxBackendProtocol]:
        # Not root: to root no file is closed, and there are tests of closed ones.
        with BelljarSandbox.create(user="user") as backend:
            yield backend
