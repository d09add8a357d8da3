"""A server that forgets nothing when it is killed, and can be made to cut a connection at any byte: for the SDK's own promises.

It speaks as much of the API as the SDK does, over a unix socket, in threads of this process. What a real server and a real agent
do is tested in tests/api and tests/node.
"""

import base64
import contextlib
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from belljar.model import framing
from belljar.model.events import Event, event_json
from belljar.model.process import Exit, Output, Stream

__all__ = ("Cut", "ScriptedProcess", "ScriptedServer")

SANDBOX = {
    "id": "sb0000000000000000001",
    "name": "web",
    "image": "base",
    "status": "running",
    "created": 1000.0,
    "started": 1001.0,
    "expires": None,
    "ended": None,
    "cpu": 1.0,
    "memory": 1 << 30,
    "disk": 10 << 30,
    "pids": 1024,
    "env": {},
    "labels": {},
    "workdir": None,
    "user": None,
    "network": "open",
    "lifetime": 3600.0,
}


class Cut(Exception):
    """The connection breaks here."""


@dataclass
class ScriptedProcess:
    """`stdout` and `stderr` are there at once; it
    ends with `returncode` when `ends` is set (and, if it `reads`, its input closed)."""

    stdout: bytes = b""
    stderr: bytes = b""
    returncode: int = 0
    reads: bool = False
    closes_stdin: bool = False
    kept_from: int = 0
    ends: threading.Event = field(default_factory=threading.Event)
    stdin: bytearray = field(default_factory=bytearray)
    eof: bool = False
    signals: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    id: int = 1

    def __post_init__(self) -> None:
        if not self.reads:
            self.ends.set()

    @property
    def ended(self) -> bool:
        return self.ends.is_set() and (self.eof or not self.reads)

    def json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "pid": 100 + self.id,
            "argv": self.request.get("argv", ["sh"]),
            "user": "root",
            "started": 1.0,
            "pty": self.request.get("pty") is not None,
            "returncode": self.returncode if self.ended else None,
            "stdin": len(self.stdin),
        }


class ScriptedServer:
    """`next_processes` are what the next starts give.

    `cuts`: for each following answer, the bytes of its body after which it is cut; `cut_requests` the same for what comes in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next_processes: list[ScriptedProcess] = []
        self.processes: dict[str, ScriptedProcess] = {}
        self.cuts: list[int | None] = []
        self.cut_requests: list[int | None] = []
        self.files: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.trees: dict[str, bytes] = {}
        self.audit: list[bytes] = []
        self.events: list[Event] = []
        self.events_now = 0
        """The number of the newest for one who begins now."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[tuple[str, str], Callable[[], tuple[int, Any]]] = {}
        self.creates: dict[str, dict[str, Any]] = {}
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = _Server(str(self.path), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """As by SIGKILL: every connection breaks, nothing answers."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()

    def restart_after(self, seconds: float) -> threading.Thread:
        self.kill()
        thread = threading.Thread(target=lambda: (time.sleep(seconds), self.start()), daemon=True)
        thread.start()
        return thread

    def process(self, id: str) -> ScriptedProcess:
        return next(one for one in self.processes.values() if str(one.id) == id or str(100 + one.id) == id)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: str, script: ScriptedServer) -> None:
        super().__init__(path, _Handler)
        self.script = script
        self.open: set[socket.socket] = set()
        self.dead = False

    def kill(self) -> None:
        self.dead = True
        self.shutdown()
        self.server_close()
        for one in list(self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a cut is meant, and what else breaks shows in the client


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        script = self.server.script
        parts = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(parts.query, errors="surrogateescape").items()}
        if parts.path == "/health":
            self._read_body(None)
            self._json(200, {"status": "ok"})
            return
        script.requests.append((self.command, parts.path, self.query))
        script.headers.append(dict(self.headers.items()))
        limit = script.cut_requests.pop(0) if script.cut_requests else None
        try:
            body = self._read_body(limit)
            script.bodies.append(body)
            planned = script.answers.get((self.command, parts.path))
            if planned is not None:
                self._json(*planned())
                return
            self.left = script.cuts.pop(0) if script.cuts else None
            self._route(parts.path.removeprefix("/v1/").split("/"), body)
        except Cut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _read_body(self, limit: int | None) -> bytes:
        """All of it; with `limit` so many bytes are heard (they count as taken) and then the connection breaks."""
        body = bytearray()
        length = self.headers.get("content-length")
        if length is not None:
            wanted = int(length) if limit is None else min(limit, int(length))
            body += self.rfile.read(wanted)
        elif self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        if limit is not None and length is not None and len(body) < int(length):
            self._take_part(bytes(body))
            raise Cut
        return bytes(body)

    def _take_part(self, body: bytes) -> None:
        path = urlsplit(self.path).path
        if path.endswith("/files/content"):
            self._take_upload(body)
        elif path.endswith("/stdin"):
            self._take_stdin(self.server.script.process(path.split("/")[-2]), body)

    def _route(self, words: list[str], body: bytes) -> None:
        match self.command, words:
            case "POST", ["sandboxes"]:
                key = self.headers["idempotency-key"]
                self.server.script.creates.setdefault(key, json.loads(body))
                self._json(201, SANDBOX | {"labels": json.loads(body).get("labels", {})})
            case "GET", ["sandboxes"]:
                self._json(200, {"items": [SANDBOX], "next": None if self.query.get("cursor") else "more"})
            case "DELETE", ["sandboxes", _]:
                ended = {"reason": "killed", "at": 2000.0, "message": ""}
                self._json(200, SANDBOX | {"status": "terminated", "ended": ended})
            case "GET", ["sandboxes", "web" | "sb0000000000000000001"]:
                self._json(200, SANDBOX)
            case "GET", ["audit", "export"]:
                self._start_body()
                for line in self.server.script.audit[int(self.query["after"]) :]:
                    self._chunk(line)
                self._end_body()
            case "GET", ["events", "follow"]:
                place = int(self.query.get("after", self.server.script.events_now))
                self._start_body()
                self._chunk(f"id: {place}\n\n".encode())
                for event in self.server.script.events[place:]:
                    said = json.dumps(event_json(event))
                    self._chunk(f"id: {event.seq}\nevent: {event.kind}\ndata: {said}\n\n:\n\n".encode())
                while not self.server.dead:  # it is followed until somebody leaves
                    time.sleep(0.01)
                    self._chunk(b":\n\n")
            case "POST", ["sandboxes", _, "run"]:
                self._run(json.loads(body))
            case _, ["sandboxes", _, "processes", *rest]:
                self._process(rest, body)
            case _, ["sandboxes", _, "files", *rest]:
                self._file(rest, body)
            case _:
                self._error(404, "not_found", f"no {'/'.join(words)}")

    # processes -------------------------------------------------------------------------------------------------------

    def _run(self, asked: dict[str, Any]) -> None:
        script = self.server.script
        key = asked["key"]
        if key not in script.processes:
            process = script.next_processes.pop(0) if script.next_processes else ScriptedProcess()
            process.id = len(script.processes) + 1
            process.request = asked
            script.processes[key] = process
        process = script.processes[key]
        self._start_body()
        self._chunk(framing.NOTHING)
        self._chunk(framing.encode(framing.Started(process.json())))
        if "input" in asked:
            data = base64.b64decode(asked["input"])
            process.stdin[len(process.stdin) :] = data[len(process.stdin) :]
            process.eof = True
        self._output(process, {Stream.STDOUT: 0, Stream.STDERR: 0})

    def _process(self, words: list[str], body: bytes) -> None:
        script = self.server.script
        match self.command, words:
            case "GET", []:
                self._json(200, {"items": [one.json() for one in script.processes.values()]})
            case "GET", [id]:
                self._json(200, script.process(id).json())
            case "GET", [id, "output"]:
                self._start_body()
                self._output(script.process(id), {Stream(name): int(at) for name, at in self.query.items()})
            case "GET", [id, "wait"]:
                script.process(id).ends.wait(float(self.query["timeout"]))
                self._json(200, script.process(id).json())
            case "POST", [id, "stdin"]:
                process = script.process(id)
                if process.closes_stdin:
                    self._error(409, "conflict", "its stdin is closed")
                    return
                self._take_stdin(process, body)
                process.eof = process.eof or "eof" in self.query
                self._json(200, {"offset": len(process.stdin)})
            case "POST", [id, "signal"]:
                asked = json.loads(body)
                process = script.process(id)
                process.signals.append((asked["signal"], asked["group"]))
                process.returncode = -asked["signal"]
                process.reads = False
                process.ends.set()
                self._json(200, {})
            case _:
                self._json(200, {})

    def _take_stdin(self, process: ScriptedProcess, body: bytes) -> None:
        offset = int(self.query["offset"])
        assert offset <= len(process.stdin), "a gap in the input"
        process.stdin[offset:] = process.stdin[offset:] + body[len(process.stdin) - offset :]

    def _output(self, process: ScriptedProcess, offsets: dict[Stream, int]) -> None:
        for stream, content in ((Stream.STDOUT, process.stdout), (Stream.STDERR, process.stderr)):
            if stream in offsets:
                at = max(offsets[stream], process.kept_from)
                while at < len(content):
                    piece = content[at : at + 1000]
                    self._chunk(framing.encode(Output(stream, at, piece)))
                    at += len(piece)
        while not process.ended:
            if self.server.dead:
                raise Cut
            process.ends.wait(0.01)
            time.sleep(0.002)
        self._chunk(framing.encode(Exit(process.returncode)))
        self._end_body()

    # files -----------------------------------------------------------------------------------------------------------

    def _file(self, words: list[str], body: bytes) -> None:
        script = self.server.script
        path = self.query.get("path", "")
        match self.command, words:
            case "GET", ["content"]:
                if path not in script.files:
                    self._error(404, "not_found", f"no file {path}")
                    return
                data = script.files[path][int(self.query.get("offset", 0)) :]
                self._start_body()
                for at in range(0, len(data), 1000):
                    self._chunk(data[at : at + 1000])
                self._end_body()
            case "PUT", ["content"]:
                self._json(200, {"offset": self._take_upload(body)})
            case "GET", ["uploads", key]:
                self._json(200, {"offset": len(script.uploads.get(key, b""))})
            case "GET", ["stat"]:
                kind = "directory" if path in script.trees else "file"
                if kind == "file" and path not in script.files:
                    self._error(404, "not_found", f"no file {path}")
                    return
                size = len(script.files.get(path, b""))
                info = {"path": path, "kind": kind, "size": size, "mode": 0o640, "uid": 0, "gid": 0, "user": "root"}
                self._json(200, info | {"group": "root", "mtime": 1.0, "target": None})
            case "GET", ["tree"]:
                self._start_body()
                for at in range(0, len(script.trees[path]), 1000):
                    self._chunk(script.trees[path][at : at + 1000])
                self._end_body()
            case "PUT", ["tree"]:
                script.trees[path] = body
                self._json(200, {"entries": 1})
            case _:
                self._json(200, {})

    def _take_upload(self, body: bytes) -> int:
        upload = self.server.script.uploads.setdefault(self.query["upload"], bytearray())
        offset = int(self.query["offset"])
        assert offset <= len(upload), "a gap in the upload"
        upload += body[len(upload) - offset :]
        length = int(self.headers["content-length"])
        if self.query["last"] == "true" and len(body) == length:
            self.server.script.files[self.query["path"]] = bytes(upload)
        return len(upload)

    # answers ---------------------------------------------------------------------------------------------------------

    def _json(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str, message: str) -> None:
        error = {"code": code, "message": message, "retryable": False, "request_id": "r1"}
        self._json(status, {"error": error})

    def _start_body(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        cut = self.left is not None and self.left < len(data)
        if self.left is not None:
            data = data[: self.left]
            self.left -= len(data)
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if cut or self.server.dead:
            raise Cut

    def _end_body(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
