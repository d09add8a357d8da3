"""Each snippet of each page works as it is printed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.compat.environments import ROOT, Say
from tests.docs.snippets import blocks_of, run_page

PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if blocks_of(path.read_text())]


@pytest.mark.node
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_of_the_page_runs(
    page: Path, server: dict[str, str], say: Say, report_line: Callable[[str], None]
) -> None:
    outcome = run_page(page, server, say, timeout=300)
    assert outcome.ran, f"{page.name}: nothing ran"
    report_line(f"{page.name}: {outcome}")
