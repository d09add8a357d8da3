"""gVisor passes the suite that ships."""

import pytest

from belljar.node.engine.conformance import ALL_CHECKS, Bed, Check, Verdict, run_check

pytestmark = pytest.mark.node


@pytest.mark.timeout(240)
@pytest.mark.parametrize("check", ALL_CHECKS, ids=lambda check: check.name)
async def test_gvisor(check: Check, bed: Bed) -> None:
    result = await run_check(check, bed, await bed.engine.capabilities())
    assert result.verdict is Verdict.PASSED, result.detail
