"""Stands between a server and its database, and cuts the line where a test wants it cut."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Generator
from enum import Enum

__all__ = ("CuttingProxy", "When", "cutting_proxy")

_COMMIT = b"COMMIT"


class When(Enum):
    NEVER = "never"
    BEFORE = "the commit does not arrive"
    AFTER = "the commit arrives, its answer does not"


class CuttingProxy:
    """One thread for each connection. `open` False: a new one is closed at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]
        self.when = When.NEVER
        self.open = True
        self.cuts = 0

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            pair = (client, socket.create_connection(("127.0.0.1", self._port)))
            self._pairs.append(pair)
            self._threads.append(threading.Thread(target=self._pass_on, args=pair))
            self._threads[-1].start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        return
                    if key.fileobj is client and _COMMIT in data and self.when is not When.NEVER:
                        self._at_commit(server, data)
                        return
                    key.data.sendall(data)

    def _at_commit(self, server: socket.socket, data: bytes) -> None:
        self.cuts += 1
        if self.when is When.AFTER:
            server.sendall(data)
            assert server.recv(1 << 16)
        self.when = When.NEVER

    def cut(self) -> None:
        """Every connection there is."""
        for pair in self._pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def cutting_proxy(port: int) -> Generator[CuttingProxy]:
    proxy = CuttingProxy(port)
    thread = threading.Thread(target=proxy.serve)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)
