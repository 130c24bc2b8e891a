"""`/live`: the live feed, as server-sent events and as a WebSocket.

A browser that is signed in gets all that its pages show, and screen pops. A program with a token
gets screen pops alone; so does every WebSocket.
"""

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from offhook.tasks import end
from offhook_console.listeners import FeedMessage
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right

_LONGEST_ID = 100  # characters


async def live(request: Request, person: Person) -> Response:
    """The live feed, as server-sent events."""
    feed, phones = parts_of(request).feed_of(person), parts_of(request).phones_of(person)
    after = request.headers.get("last-event-id") or _after(request)
    pages = person.token is None and person.may(Right.CALLS)
    return stream(feed.messages(person.view, phones, after, pages=pages))


def stream(messages: AsyncIterator[FeedMessage]) -> Response:
    """Messages as server-sent events."""

    async def events() -> AsyncIterator[bytes]:
        async for message in messages:
            yield message.as_sse

    return EventSourceResponse(events(), ping=15, headers={"X-Accel-Buffering": "no"})


async def live_socket(socket: WebSocket, person: Person) -> None:
    """Screen pops, as JSON messages of a WebSocket."""
    feed, phones = parts_of(socket).feed_of(person), parts_of(socket).phones_of(person)

    async def send() -> None:
        async for message in feed.messages(person.view, phones, _after(socket), pages=False):
            await socket.send_text(message.as_json)
        await socket.close(1012)  # the console stops: connect again

    async def read() -> None:
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass  # nothing is taken

    tasks = [asyncio.create_task(send()), asyncio.create_task(read())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(*tasks)
    for task in tasks:
        # A client that goes away between two messages is no fault.
        if not task.cancelled() and not isinstance(task.exception(), WebSocketDisconnect):
            task.result()


def _after(connection: HTTPConnection) -> str | None:
    """The id of the last message that was read: for those who cannot send the header."""
    return connection.query_params.get("last-event-id", "")[:_LONGEST_ID] or None
