"""The part of the sandbox PBX that places calls: it makes the callbacks, and counts the answers.

A VoipNow PBX calls once: it does not repeat, does not follow redirects, and no document says how
long it waits.
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
from unifiedapi.sandbox.scenarios import Call, Callback


@dataclass(frozen=True, slots=True)
class Registration:
    """What the PBX knows of a phone call event: where to call, and how."""

    url: str
    method: Literal["GET", "POST"] = "GET"


class Drop(StrEnum):
    """Which callbacks of a call are lost: never made, as when the PBX or its network fails."""

    NONE = "none"
    HANGUP = "hangup"
    ALL = "all"

    def loses(self, callback: Callback) -> bool:
        """Whether this one is lost."""
        return self is Drop.ALL or (self is Drop.HANGUP and callback.type is EventType.HANGUP)


@dataclass(slots=True)
class Tally:
    """What has become of the callbacks so far.

    Attributes:
        calls: the calls that are over, all their callbacks answered or given up.
        sent: callbacks begun, so none that were dropped; the sum of the others once nothing is on
            its way.
        accepted: answered 2xx.
        refused: answered otherwise, by status.
        failed: not answered, by reason: `timeout`, `TLS`, `no connection`, `not a URL` or
            `broken off`.
    """

    calls: int = 0
    sent: int = 0
    accepted: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


Registered = Callable[[str, EventType], Sequence[Registration]]


def registered_in(registrations: Mapping[tuple[str, EventType], Registration]) -> Registered:
    """One registration at most for an extension and an event type, as in this mapping."""

    def look_up(extension: str, event_type: EventType) -> Sequence[Registration]:
        found = registrations.get((extension, event_type))
        return () if found is None else (found,)

    return look_up


# Sends one callback: method, URL, and form parameters as the body of a POST. Returns the status.
# Raises `ConnectionAbortedError` when a connection ended before the response, `OSError` when there
# was none (`ssl.SSLError`: TLS failed), `ValueError` when the URL is none.
Send = Callable[[str, str, bytes | None], Awaitable[int]]
Sender = Callable[[], AbstractAsyncContextManager[Send]]


class Pbx:
    """Places calls: makes their callbacks to whom they are registered for. An async context.

    Args:
        sender: opens the HTTP client that sends the callbacks, such as `offhook.http.callbacks`.
        registered: what is registered for an extension and an event type; asked when the callback
            is due, so it may change meanwhile.
        speed: 10 makes a call last a tenth of its time; `math.inf`, no time but that of the
            answers.
        timeout: seconds to wait for an answer.
        concurrency: how many callbacks may be on their way at once; the others wait.
        drop: which callbacks are lost.
        ended: told of each call whose last moment has come, with the moment when it began.
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
        ended: Callable[[Call, datetime], None] | None = None,
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

    async def place(self, call: Call) -> None:
        """Make the callbacks of one call, each at its time; return when all are answered.

        Like a real PBX it waits for no answer before the next callback, unless time is compressed:
        then the next moment of the call waits for the answers of the last, lest a slow one be
        overtaken by what should come seconds after it.
        """
        loop = asyncio.get_running_loop()
        began, moment_began = loop.time(), datetime.now(UTC)
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
                self._ended(call, moment_began)
        self.tally.calls += 1

    async def load(self, calls: Iterable[Call], rate: float, duration: float = inf) -> None:
        """Place calls at a steady rate; return when all are over.

        When the receiver is slower than that, calls begin later: no more callbacks than
        `concurrency` are on their way, and no new call overtakes those that wait.

        Args:
            rate: calls to begin per second.
            duration: seconds after which no call begins any more, if `calls` did not end before.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, call in enumerate(calls):
                begin = max(number / rate, loop.time() - began)
                if begin >= duration:
                    break
                await asyncio.sleep(began + begin - loop.time())
                async with self._slots:  # behind all that wait for one
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
        """The status of the answer. A query that the URL has of its own is kept."""
        url, body = registration.url, None
        if registration.method == "GET":
            url += ("&" if "?" in url else "?") + parameters
        else:
            body = parameters.encode()
        async with asyncio.timeout(self._timeout):
            return await self._send(registration.method, url, body)
