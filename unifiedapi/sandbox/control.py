"""The sandbox PBX with a control endpoint that places calls.

    POST /sandbox/calls   {"scenario": "ring-group", "phones": ["0003*210", ...], "speed": 20}
    POST /sandbox/load    {"calls": 1000, "rate": 50, "phones": [...], "speed": 20}
    GET  /sandbox/tally   counts of calls and callbacks

It also places the calls that are ordered with `POST /uapi/phoneCalls/@me/simple`.

`"drop": "hangup"` or `"all"` suppresses these callbacks. Every call leaves a call record (`GET
/uapi/cdr`), no matter what happens to its callbacks.

VoipNow has no such endpoint. It needs no token, so do not expose it to other machines.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unifiedapi.resources import EventMethod, EventType
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.ordered_call import script
from unifiedapi.sandbox.pbx import Drop, Pbx, Registration, Sender
from unifiedapi.sandbox.scenarios import QUEUE, Scenario, ScriptedCall, make_call, random_calls
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import ExtensionKind, OrderedCall, Store


class _Order(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    phones: list[str] | None = None  # by default all phone terminals
    queue: str | None = None  # by default the first queue
    speed: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    seed: int | None = None  # the same seed places the same calls
    drop: Drop = Drop.NONE


class CallOrder(_Order):
    """An order for one call."""

    scenario: Scenario


class LoadOrder(_Order):
    """An order for many calls."""

    calls: Annotated[int, msgspec.Meta(ge=1)]
    rate: Annotated[float, msgspec.Meta(gt=0)] = 10.0  # calls to start per second
    scenarios: list[Scenario] | None = None  # by default all that have enough phones


_AnyOrder = TypeVar("_AnyOrder", bound=_Order)


class Exchange:
    """Places calls on a sandbox PBX and makes their callbacks.

    Args:
        store: has the registered phone call events.
        sender: opens the HTTP client for callbacks.
        speed: of the calls that are ordered through the API.
    """

    def __init__(self, store: Store, sender: Sender, speed: float = 1.0) -> None:
        self._store = store
        self._sender = sender
        self._running: set[asyncio.Task[None]] = set()
        self._pbxs: list[Pbx] = []
        self._speed = speed
        store.placing = self._place

    def call(self, order: CallOrder) -> dict[str, str]:
        """Place one call in the background. Return its CallID as `id`.

        Raises:
            ValueError: there are not enough phones, or some do not exist.
        """
        phones, queue = self._extensions(order)
        call = make_call(order.scenario, Random(order.seed), phones, queue)
        self._start(order, lambda pbx: pbx.place(call))
        return {"id": call.id}

    def load(self, order: LoadOrder) -> dict[str, str]:
        """Place many calls in the background.

        Raises:
            ValueError: there are not enough phones, or some do not exist.
        """
        phones, queue = self._extensions(order)
        scenarios = tuple(order.scenarios or Scenario)
        calls = islice(random_calls(Random(order.seed), phones, scenarios, queue), order.calls)
        self._start(order, lambda pbx: pbx.load(calls, order.rate))
        return {}

    def _place(self, ordered: OrderedCall) -> None:
        """Place a call that was ordered through the API."""
        call = script(ordered, self._store.extensions, Random(ordered.id))
        if call.callbacks:
            self._start(_Order(speed=self._speed), lambda pbx: pbx.place(call))

    def tally(self) -> dict[str, Any]:
        """Return the counts over all calls."""
        tallies = [pbx.tally for pbx in self._pbxs]
        return {
            "calls": sum(tally.calls for tally in tallies),
            "sent": sum(tally.sent for tally in tallies),
            "accepted": sum(tally.accepted for tally in tallies),
            "refused": dict(sum((tally.refused for tally in tallies), Counter[int]())),
            "failed": dict(sum((tally.failed for tally in tallies), Counter[str]())),
            "running": len(self._running),
        }

    async def close(self) -> None:
        """Stop all calls."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, order: _Order, place: Callable[[Pbx], Awaitable[None]]) -> None:
        def ended(call: ScriptedCall, began: datetime) -> None:
            self._store.add_record(record_of(call, began, datetime.now(UTC), order.speed))

        pbx = Pbx(self._sender, self._registered, speed=order.speed, drop=order.drop, ended=ended)
        self._pbxs.append(pbx)

        async def run() -> None:
            async with pbx:
                await place(pbx)

        task = asyncio.create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _registered(self, extension: str, event_type: EventType) -> Sequence[Registration]:
        return [
            Registration(event.url, "GET" if event.method == EventMethod.GET else "POST")
            for event in self._store.registrations(extension, event_type)
            if event.url
        ]

    def _extensions(self, order: _Order) -> tuple[list[str], str]:
        """Return the phones and the queue."""
        phones = order.phones or self._store.numbers(ExtensionKind.PHONE)
        unknown = [number for number in phones if number not in self._store.extensions]
        if unknown:
            raise ValueError(f"this PBX has no extension {', '.join(unknown)}")
        return phones, order.queue or next(iter(self._store.numbers(ExtensionKind.QUEUE)), QUEUE)


def create_exchange(
    store: Store,
    sender: Sender,
    *,
    numbers: bool = False,
    wrapped: bool = False,
    speed: float = 1.0,
) -> Starlette:
    """Create the app of `create_sandbox` with the control endpoint.

    Args:
        sender: opens the HTTP client for callbacks, such as `offhook.http.callbacks`.
        speed: of the calls that are ordered through the API: 10 makes them ten times faster.
    """
    exchange = Exchange(store, sender, speed)

    async def place_call(request: Request) -> Response:
        return await _carried_out(request, CallOrder, exchange.call)

    async def place_load(request: Request) -> Response:
        return await _carried_out(request, LoadOrder, exchange.load)

    async def tally(request: Request) -> Response:
        return JSONResponse(exchange.tally())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await exchange.close()

    return create_sandbox(
        store,
        numbers=numbers,
        wrapped=wrapped,
        routes=[
            Route("/sandbox/calls", place_call, methods=["POST"]),
            Route("/sandbox/load", place_load, methods=["POST"]),
            Route("/sandbox/tally", tally),
        ],
        lifespan=lifespan,
    )


async def _carried_out(
    request: Request, order: type[_AnyOrder], carry_out: Callable[[_AnyOrder], dict[str, str]]
) -> Response:
    """Carry out the order in the body and answer 202, or 400 with what is wrong with it."""
    try:
        done = carry_out(msgspec.json.decode(await request.body(), type=order))
    except (msgspec.DecodeError, ValueError) as error:
        body = {"error": {"code": "request_invalid", "message": str(error)}}
        return JSONResponse(body, status_code=400)
    return JSONResponse(done, status_code=202)
