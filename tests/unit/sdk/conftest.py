"""A scripted server that this process finds by itself."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.sdk.scripted import ScriptedServer

from belljar.base.home import ServerFile, write_server_file

__all__ = ("server",)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with tempfile.TemporaryDirectory(prefix="bj-sdk-") as folder:  # short: paths of sockets have at most 108 bytes
        home = Path(folder)
        monkeypatch.setenv("BELLJAR_HOME", str(home))
        monkeypatch.delenv("BELLJAR_URL", raising=False)
        script = ScriptedServer(home / "api.sock")
        script.start()
        write_server_file(home, ServerFile(1, str(script.path), embedded=False))
        yield script
        script.kill()
