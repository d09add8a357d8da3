"""Inspect's own check of sandbox providers, against Belljar's."""

from collections.abc import AsyncIterator

import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

pytestmark = pytest.mark.asyncio(loop_scope="module")
CONFIG = {"user": "user"}
"""Not root: to root no file is closed, and four checks are about closed ones."""


@pytest.fixture(scope="module")
async def sample() -> AsyncIterator[SandboxEnvironment]:
    provider = registry_find_sandboxenv("belljar")  # by the entry point, as an evaluation does
    config = provider.config_deserialize(CONFIG)
    await provider.task_init("self check", config)
    environments = await provider.sample_init("self check", config, {})
    yield environments["default"]
    await provider.sample_cleanup("self check", config, environments, False)


@pytest.fixture
async def sandbox_env(sample: SandboxEnvironment) -> SandboxEnvironment:
    """One sandbox for all checks, as in Inspect's own runs of them."""
    return sample
