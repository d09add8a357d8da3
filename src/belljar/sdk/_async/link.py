"""One server and the pooled connections to it: calls that survive its restart, and bodies that are read as they come."""

import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from belljar.model.errors import DeadlineExceeded, Error, Starting
from belljar.sdk._async import flow
from belljar.sdk.answers import error_of_body
from belljar.sdk.errors import ServerUnreachable
from belljar.sdk.patience import Patience, tell
from belljar.sdk.places import Place, Settings, find, listens, settings_from, unreachable

__all__ = ("AsyncBody", "AsyncLink", "Lost", "shared_link")

CONNECT_SECONDS = 5.0
STREAM_SILENCE = 60.0
"""The server says something at least every 10 s on a stream."""
_RESTART_SECONDS = 5.0
"""For whoever runs a server in the foreground to bring it back; then an embedded one is started, from which it can take over."""
_SURE_SECONDS = 1.0
"""So long after an answer it is not asked again whether anybody is there."""
_links = flow.Shared()
_GONE = (
    httpx2.NetworkError,
    httpx2.RemoteProtocolError,
    httpx2.ConnectTimeout,
    httpx2.WriteTimeout,
    httpx2.PoolTimeout,
)


class Lost(Exception):
    """The connection broke. `sent`: the server may have heard the request."""

    def __init__(self, why: BaseException | str, *, sent: bool = True) -> None:
        super().__init__(str(why) or type(why).__name__)
        self.sent = sent


class AsyncBody:
    """The body of an answer, chunk by chunk. Raises Lost when the connection breaks before its end."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._chunks = response.aiter_raw()

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def read(self) -> bytes:
        """The next chunk; b"" at the end."""
        try:
            return await anext(self._chunks, b"")
        except (httpx2.TransportError, httpx2.StreamError) as error:
            raise Lost(error) from error

    def abort(self) -> None:
        """Makes a `read` in another task or thread end at once."""
        raw = self._response.extensions["network_stream"].get_extra_info("socket")
        with contextlib.suppress(OSError):  # it broke by itself
            raw.shutdown(socket.SHUT_RDWR)

    async def aclose(self) -> None:
        with contextlib.suppress(httpx2.TransportError):  # what was to be closed is gone
            await self._response.aclose()


class AsyncLink:
    """Finds its server at the first call, starts an embedded one where that is due, and finds it again when it vanished."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._place: Place | None = None
        self._client: httpx2.AsyncClient | None = None
        self._retired: list[httpx2.AsyncClient] = []
        self._reached = False
        self._embedded = False
        self._heard = 0.0
        self._process = os.getpid()
        self._recovering = flow.Lock()

    @property
    def reached(self) -> bool:
        """Whether a server has ever answered here."""
        return self._reached

    # calls -----------------------------------------------------------------------------------------------------------

    async def call(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        settled: tuple[type[Error], ...] = (),
        patience: Patience | None = None,
        retry: bool = True,
    ) -> Any:
        """One request and the JSON of its answer. `timeout` in seconds, for the answer to begin.

        Every call may be repeated: it is idempotent, carries a key or an offset, or its error in `settled` says that an earlier
        attempt, whose answer was lost, had worked (then None is returned). Without `retry` a lost connection raises Lost.
        Raises the server's error, DeadlineExceeded, ServerUnreachable.
        """
        patience = patience or Patience()
        heard = False
        while True:
            try:
                response = await self._send(method, url, json, content, headers, timeout)
                try:
                    body = await response.aread()
                except httpx2.TransportError as error:
                    raise Lost(error) from error
                finally:
                    await response.aclose()
            except Lost as lost:
                if not retry:
                    raise
                heard = heard or lost.sent
                await self.recover(patience, lost)
                continue
            if response.status_code < 400:
                return _parsed(body)
            error = error_of_body(response.status_code, body)
            if isinstance(error, Starting) and patience.left() > 0:
                await flow.sleep(patience.pause())
                continue
            if heard and isinstance(error, settled):
                return None
            raise error

    async def open(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        content: AsyncIterator[bytes] | None = None,
        timeout: float = STREAM_SILENCE,
    ) -> AsyncBody:
        """One request, and its answer's body to read; `timeout` in seconds between two pieces of it. The caller closes it.

        Raises Lost when the connection breaks (the caller recovers: only it knows where to go on), and the server's error.
        """
        response = await self._send(method, url, json, content, None, timeout)
        if response.status_code < 400:
            return AsyncBody(response)
        try:
            body = await response.aread()
        except httpx2.TransportError as error:
            raise Lost(error) from error
        finally:
            await response.aclose()
        error = error_of_body(response.status_code, body)
        if isinstance(error, Starting):
            raise Lost(error)
        raise error

    async def recover(self, patience: Patience, lost: Lost) -> None:
        """Returns when a server answers again. Raises ServerUnreachable when patience is over."""
        if not self._reached:
            await self._reach_first(lost)
            return
        async with self._recovering:
            told = False
            while True:
                if patience.left() <= 0:
                    raise unreachable(self.settings, str(lost)) from lost
                if await self._answers():
                    if told:
                        tell("the server answers again")
                    await flow.sleep(patience.pause())
                    return
                if not told:
                    tell("the server is gone; waiting for it")
                    told = True
                if self._may_start() and (self._embedded or patience.waited() > _RESTART_SECONDS):
                    try:
                        await self._start()
                    except ServerUnreachable as error:
                        # Another server may be taking over: it answers soon, or this is what the caller is told.
                        if patience.left() < 1:
                            raise error from lost
                await flow.sleep(patience.pause())

    async def aclose(self) -> None:
        clients = [*self._retired, self._client]
        self._retired, self._client = [], None
        for client in clients:
            if client is not None:
                await client.aclose()

    # the server ------------------------------------------------------------------------------------------------------

    async def _reach_first(self, lost: Lost) -> None:
        async with self._recovering:
            if self._reached or await self._answers():
                return
            if not self._may_start():
                raise unreachable(self.settings, str(lost)) from lost
            await self._start()
            if not await self._answers():
                raise unreachable(self.settings, "the server that was started does not answer") from lost

    def _may_start(self) -> bool:
        return self.settings.url is None and self.settings.may_start

    async def _start(self) -> None:
        from belljar.sdk._async.embedded import start_embedded  # 25 ms, and most clients find a server

        await start_embedded(self.settings, self._ask_health)

    async def _answers(self) -> bool:
        """Whether a server answers at the place where one is now looked for."""
        await self._go_to(find(self.settings))
        return await self._ask_health()

    async def _ask_health(self) -> bool:
        if self._place is None:
            await self._go_to(find(self.settings))
        if self._place is None or not listens(self._place):
            self._place = None
            return False
        try:
            response = await self._send("GET", "/health", None, None, None, 2.0)
            await response.aread()
            await response.aclose()
        except (Lost, DeadlineExceeded, httpx2.TransportError):
            self._place = None
            return False
        return response.status_code == 200

    def _forked(self) -> None:
        """In a child of the process that made this: connections cannot be shared, and closing them would end the parent's."""
        self._inherited = (self._client, *self._retired)
        self._process, self._client, self._retired = os.getpid(), None, []
        self._recovering = flow.Lock()

    async def _go_to(self, place: Place | None) -> None:
        if place != self._place or self._client is None:
            if self._client is not None:
                self._retired.append(self._client)  # not closed yet: another task may be reading from it
            self._place = place
            self._client = _client_for(place, self.settings.key) if place is not None else None

    async def _send(
        self,
        method: str,
        url: str,
        json_body: Any,
        content: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str] | None,
        timeout: float,
    ) -> httpx2.Response:
        if self._process != os.getpid():
            self._forked()
        if self._client is None or self._place is None:
            await self._go_to(find(self.settings))
        client, place = self._client, self._place
        if client is None or place is None:
            raise Lost("there is none", sent=False)
        if time.monotonic() - self._heard > _SURE_SECONDS and not listens(place):
            raise Lost("nobody listens on its socket", sent=False)
        said = dict(headers or {})
        if json_body is not None:
            content = json.dumps(json_body, separators=(",", ":")).encode()
            said["content-type"] = "application/json"
        request = client.build_request(
            method,
            place.url + url,
            content=content,
            headers=said,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS, write=STREAM_SILENCE, pool=CONNECT_SECONDS),
        )
        try:
            response = await client.send(request, stream=True)
        except httpx2.ReadTimeout as error:
            raise DeadlineExceeded(f"the server did not answer within {timeout:g} s") from error
        except _GONE as error:
            raise Lost(error, sent=not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))) from error
        self._reached, self._embedded, self._heard = True, place.embedded, time.monotonic()
        return response


async def shared_link(settings: Settings | None = None) -> AsyncLink:
    """The link to the server that is meant now: one for all sandboxes of this process (of this event loop)."""
    wanted = settings or settings_from()
    links = _links.here()
    if wanted not in links:
        made = links[wanted] = AsyncLink(wanted)
        await flow.at_end(made.aclose)
    return links[wanted]


def _client_for(place: Place, key: str | None) -> httpx2.AsyncClient:
    # One idle connection lives longer than the default 5 s: making one costs as much as a call.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60.0)
    if place.socket is not None:
        transport = httpx2.AsyncHTTPTransport(uds=place.socket, verify=False, limits=limits, trust_env=False)
        return httpx2.AsyncClient(transport=transport, trust_env=False)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(limits=limits, headers=headers, trust_env=not place.is_loopback)


def _parsed(body: bytes) -> Any:
    return json.loads(body) if body else None
