"""The client for scripts: the same methods, without `await`.

Each method is made of the asynchronous one; what it does is written once, in `client.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from unifiedapi.client import (
    CallRecords,
    Listing,
    PhoneCallEvents,
    PresenceService,
    QueueAgents,
    UnifiedApi,
)
from unifiedapi.oauth import Auth
from unifiedapi.resources import Resource
from unifiedapi.transport import WAITS

S = TypeVar("S")  # the asynchronous service
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Resource)


class _Blocking(Generic[S]):
    def __init__(self, service: S, loop: asyncio.Runner) -> None:
        self._service = service
        self._loop = loop


def _blocking(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[_Blocking[S], P], R]:
    def call(self: _Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.run(method(self._service, *args, **kwargs))

    call.__doc__ = method.__doc__
    return call


def _listing(
    method: Callable[Concatenate[S, P], Listing[T]],
) -> Callable[Concatenate[_Blocking[S], P], Iterator[T]]:
    def call(self: _Blocking[S], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        entries = aiter(method(self._service, *args, **kwargs))
        return _drawn(entries.__anext__, self._loop)

    call.__doc__ = method.__doc__
    return call


def _drawn(draw: Callable[[], Awaitable[T]], loop: asyncio.Runner) -> Iterator[T]:
    async def one() -> T | None:
        try:
            return await draw()
        except StopAsyncIteration:
            return None

    while (entry := loop.run(one())) is not None:
        yield entry


class BlockingPhoneCallEvents(_Blocking[PhoneCallEvents]):
    """The callbacks of an extension."""

    create = _blocking(PhoneCallEvents.create)
    list = _listing(PhoneCallEvents.list)
    update = _blocking(PhoneCallEvents.update)
    delete = _blocking(PhoneCallEvents.delete)
    delete_all = _blocking(PhoneCallEvents.delete_all)


class BlockingPresence(_Blocking[PresenceService]):
    """What phone terminals are doing."""

    list = _listing(PresenceService.list)


class BlockingQueueAgents(_Blocking[QueueAgents]):
    """The agents of a queue."""

    list = _listing(QueueAgents.list)
    update = _blocking(QueueAgents.update)


class BlockingCallRecords(_Blocking[CallRecords]):
    """The calls that the PBX has recorded."""

    list = _listing(CallRecords.list)


class BlockingUnifiedApi:
    """`UnifiedApi` for scripts; takes the same arguments. Not for use inside of a running loop."""

    def __init__(
        self,
        base_url: str,
        auth: Auth,
        *,
        ca_file: str | Path | None = None,
        insecure: bool = False,
        timeout: float = 10.0,
        waits: Sequence[float] = WAITS,
        zone: tzinfo = UTC,
    ) -> None:
        self._api = UnifiedApi(
            base_url,
            auth,
            ca_file=ca_file,
            insecure=insecure,
            timeout=timeout,
            waits=waits,
            zone=zone,
        )
        self._loop = asyncio.Runner()
        self.phone_call_events = BlockingPhoneCallEvents(self._api.phone_call_events, self._loop)
        self.presence = BlockingPresence(self._api.presence, self._loop)
        self.queue_agents = BlockingQueueAgents(self._api.queue_agents, self._loop)
        self.call_records = BlockingCallRecords(self._api.call_records, self._loop)

    def close(self) -> None:
        """Close every connection."""
        self._loop.run(self._api.close())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
