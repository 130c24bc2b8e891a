"""The whole sandbox PBX: its API, and a control endpoint that places calls on it.

    POST /sandbox/calls   {"scenario": "ring-group", "phones": ["0003*210", ...], "speed": 20}
    POST /sandbox/load    {"calls": 1000, "rate": 50, "phones": [...], "speed": 20}
    GET  /sandbox/tally   what has become of the callbacks so far

With `"drop": "hangup"` or `"all"` an order's calls lose these callbacks. Each call that is over
leaves a call record (`GET /uapi/cdr`), whatever became of its callbacks.

The control endpoint is ours, no VoipNow has it, and it asks for no token: keep it on this machine.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from random import Random
from typing import Annotated, Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unifiedapi.resources import EventMethod, EventType
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.pbx import Drop, Pbx, Registration, Sender
from unifiedapi.sandbox.scenarios import QUEUE, Call, Scenario, make_call, random_calls
from unifiedapi.sandbox.server import create_sandbox
from unifiedapi.sandbox.store import Kind, Store


class _Placing(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    phones: list[str] | None = None  # all phone terminals, if not said
    queue: str | None = None  # the first queue, if not said
    speed: Annotated[float, msgspec.Meta(gt=0)] = 1.0  # 10: a call lasts a tenth of its time
    seed: int | None = None  # the same one places the same calls
    drop: Drop = Drop.NONE  # the callbacks that are never made


class CallOrder(_Placing):
    """One call to place."""

    scenario: Scenario


class LoadOrder(_Placing):
    """Many calls to place, of all scenarios that there are phones for, or of some."""

    calls: Annotated[int, msgspec.Meta(ge=1)]
    rate: Annotated[float, msgspec.Meta(gt=0)] = 10.0  # calls to begin per second
    scenarios: list[Scenario] | None = None


class Exchange:
    """Places calls on a sandbox PBX; those who registered phone call events hear of them.

    Args:
        store: what the PBX holds.
        sender: opens the HTTP client that sends the callbacks.
    """

    def __init__(self, store: Store, sender: Sender) -> None:
        self._store = store
        self._sender = sender
        self._running: set[asyncio.Task[None]] = set()
        self._tallies: list[Pbx] = []

    def call(self, order: CallOrder) -> dict[str, str]:
        """Place one call, in the background. Return its CallID, as `id`.

        Raises:
            ValueError: the PBX has too few phones for it, or not those.
        """
        phones, queue = self._places(order)
        call = make_call(order.scenario, Random(order.seed), phones, queue)
        self._start(order, lambda pbx: pbx.place(call))
        return {"id": call.id}

    def load(self, order: LoadOrder) -> dict[str, str]:
        """Place many calls, in the background.

        Raises:
            ValueError: the PBX has too few phones for them, or not those.
        """
        phones, queue = self._places(order)
        scenarios = tuple(order.scenarios or Scenario)
        calls = islice(random_calls(Random(order.seed), phones, scenarios, queue), order.calls)
        self._start(order, lambda pbx: pbx.load(calls, order.rate))
        return {}

    def tally(self) -> dict[str, Any]:
        """What has become of the callbacks so far, of all calls."""
        tallies = [pbx.tally for pbx in self._tallies]
        return {
            "calls": sum(tally.calls for tally in tallies),
            "sent": sum(tally.sent for tally in tallies),
            "accepted": sum(tally.accepted for tally in tallies),
            "refused": dict(sum((tally.refused for tally in tallies), Counter[int]())),
            "failed": dict(sum((tally.failed for tally in tallies), Counter[str]())),
            "running": len(self._running),
        }

    async def close(self) -> None:
        """Hang up: make no more callbacks."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, order: _Placing, place: Any) -> None:
        def ended(call: Call, began: datetime) -> None:
            self._store.add_record(record_of(call, began, datetime.now(UTC), order.speed))

        pbx = Pbx(self._sender, self._registered, speed=order.speed, drop=order.drop, ended=ended)
        self._tallies.append(pbx)

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

    def _places(self, order: _Placing) -> tuple[list[str], str]:
        extensions = self._store.extensions
        phones = order.phones or self._numbers(Kind.PHONE)
        unknown = [number for number in phones if number not in extensions]
        if unknown:
            raise ValueError(f"there is no extension {', '.join(unknown)} on this PBX")
        queues = self._numbers(Kind.QUEUE)
        return phones, order.queue or (queues[0] if queues else QUEUE)

    def _numbers(self, kind: Kind) -> list[str]:
        return [number for number, found in self._store.extensions.items() if found.kind == kind]


def create_exchange(
    store: Store, sender: Sender, *, numbers: bool = False, wrapped: bool = False
) -> Starlette:
    """The sandbox PBX as one app: the API of `create_sandbox`, and the control endpoint.

    Args:
        sender: opens the HTTP client that sends the callbacks, such as `offhook.http.callbacks`.
    """
    exchange = Exchange(store, sender)

    async def place_call(request: Request) -> Response:
        return await _ordered(request, CallOrder, exchange.call)

    async def place_load(request: Request) -> Response:
        return await _ordered(request, LoadOrder, exchange.load)

    async def tally(request: Request) -> Response:
        return JSONResponse(exchange.tally())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await exchange.close()

    app = create_sandbox(
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
    app.state.exchange = exchange
    return app


async def _ordered(request: Request, kind: Any, carry_out: Any) -> Response:
    """Read an order, carry it out, and answer 202; or 400 with what is wrong with it."""
    try:
        done = carry_out(msgspec.json.decode(await request.body(), type=kind))
    except (msgspec.DecodeError, ValueError) as error:
        body = {"error": {"code": "request_invalid", "message": str(error)}}
        return JSONResponse(body, status_code=400)
    return JSONResponse(done, status_code=202)
