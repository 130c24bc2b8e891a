"""The part of the sandbox PBX that places calls: it makes their callbacks and counts the responses.

Like VoipNow, it does not retry callbacks or follow redirects. VoipNow's timeout is not documented.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from math import inf
from types import TracebackType
from typing import Literal
from urllib.parse import urlencode

from unifiedapi.resources import EventType
from unifiedapi.sandbox.scenarios import Callback, ScriptedCall


@dataclass(frozen=True, slots=True)
class Registration:
    """The URL of a phone call event, and how to request it."""

    url: str
    method: Literal["GET", "POST"] = "GET"


class Drop(StrEnum):
    """The callbacks of a call that are never made, as when the PBX or its network fails."""

    NONE = "none"
    HANGUP = "hangup"
    ALL = "all"

    def loses(self, callback: Callback) -> bool:
        """Return whether this callback is never made."""
        return self is Drop.ALL or (self is Drop.HANGUP and callback.type is EventType.HANGUP)


@dataclass(slots=True)
class Tally:
    """Counts calls and their callbacks.

    Attributes:
        calls: calls whose callbacks are all done.
        sent: callbacks that were started: in the end the sum of the three below.
        accepted: callbacks with a 2xx response.
        refused: callbacks with another response, by status.
        failed: callbacks without a response, by reason: `timeout`, `TLS`, `no connection`,
            `not a URL` or `broken off`.
    """

    calls: int = 0
    sent: int = 0
    accepted: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


Registered = Callable[[str, EventType], Sequence[Registration]]


def registered_in(registrations: Mapping[tuple[str, EventType], Registration]) -> Registered:
    """Look registrations up in a mapping with at most one per extension and event type."""

    def look_up(extension: str, event_type: EventType) -> Sequence[Registration]:
        found = registrations.get((extension, event_type))
        return () if found is None else (found,)

    return look_up


# Sends one callback (method, URL, form body of a POST) and returns the status of the response.
# Raises `ConnectionAbortedError` if the connection closed before the response, `OSError` if it
# could not connect (`ssl.SSLError`: TLS failed), `ValueError` if the URL is not valid.
Send = Callable[[str, str, bytes | None], Awaitable[int]]
Sender = Callable[[], AbstractAsyncContextManager[Send]]


class Pbx:
    """Places calls and makes their callbacks. An async context manager.

    Args:
        sender: opens the HTTP client for callbacks, such as `offhook.http.callbacks`.
        registered: returns the registrations for an extension and an event type; called for each
            callback when it is due.
        speed: 10 makes calls ten times faster, `math.inf` as fast as the responses allow.
        timeout: seconds to wait for a response.
        concurrency: maximum number of callbacks in flight.
        drop: callbacks that are never made.
        ended: called with each call that ends, and the time when it began.
    """

    def __init__(
        self,
        sender: Sender,
        registered: Registered,
        *,
        speed: float = 1.0,
        timeout: float = 5.0,
        concurrency: int = 100,
        drop: Drop = Drop.NONE,
        ended: Callable[[ScriptedCall, datetime], None] | None = None,
    ) -> None:
        self.tally = Tally()
        self._drop = drop
        self._ended = ended
        self._sender = sender
        self._registered = registered
        self._speed = speed
        self._timeout = timeout
        self._slots = asyncio.Semaphore(concurrency)

    async def __aenter__(self) -> "Pbx":
        self._open = AsyncExitStack()
        self._send = await self._open.enter_async_context(self._sender())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def place(self, call: ScriptedCall) -> None:
        """Make each callback of a call at its time; return when all are done.

        Like a real PBX, it does not wait for a response before the next callback. At higher speed
        it does, so that a slow callback is not overtaken by one that is due seconds later.
        """
        loop = asyncio.get_running_loop()
        began, wall_clock_began = loop.time(), datetime.now(UTC)
        async with asyncio.TaskGroup() as group:
            for at, moment in groupby(call.callbacks, key=lambda callback: callback.at):
                await asyncio.sleep(began + at / self._speed - loop.time())
                sent = [
                    group.create_task(self._call_back(callback))
                    for callback in moment
                    if not self._drop.loses(callback)
                ]
                if sent and self._speed > 1:
                    await asyncio.wait(sent)
            if self._ended is not None:
                self._ended(call, wall_clock_began)
        self.tally.calls += 1

    async def load(self, calls: Iterable[ScriptedCall], rate: float, duration: float = inf) -> None:
        """Start calls at a steady rate; return when all are done.

        If the receiver is slower than that, calls start later: new calls wait behind the callbacks
        that wait for `concurrency`.

        Args:
            rate: calls to start per second.
            duration: seconds after which no more calls start.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, call in enumerate(calls):
                begin = max(number / rate, loop.time() - began)
                if begin >= duration:
                    break
                await asyncio.sleep(began + begin - loop.time())
                async with self._slots:  # behind the callbacks that wait
                    group.create_task(self.place(call))

    async def _call_back(self, callback: Callback) -> None:
        async with asyncio.TaskGroup() as group:
            for registration in self._registered(callback.extension, callback.type):
                group.create_task(self._make(registration, callback))

    async def _make(self, registration: Registration, callback: Callback) -> None:
        async with self._slots:
            self.tally.sent += 1
            try:
                status = await self._request(registration, urlencode(callback.parameters))
            except TimeoutError:
                self.tally.failed["timeout"] += 1
            except ConnectionAbortedError:
                self.tally.failed["broken off"] += 1
            except ssl.SSLError:
                self.tally.failed["TLS"] += 1
            except OSError:
                self.tally.failed["no connection"] += 1
            except ValueError:
                self.tally.failed["not a URL"] += 1
            else:
                if 200 <= status < 300:
                    self.tally.accepted += 1
                else:
                    self.tally.refused[status] += 1

    async def _request(self, registration: Registration, parameters: str) -> int:
        """Return the status of the response. A GET adds the parameters to the URL's query."""
        url, body = registration.url, None
        if registration.method == "GET":
            url += ("&" if "?" in url else "?") + parameters
        else:
            body = parameters.encode()
        async with asyncio.timeout(self._timeout):
            return await self._send(registration.method, url, body)
