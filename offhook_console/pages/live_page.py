"""`/live`: the live feed, as server-sent events and as a WebSocket.

A browser that is signed in gets all that its pages show, and screen pops. A program with a token
gets screen pops alone; so does every WebSocket.
"""

import asyncio
from contextlib import AbstractContextManager

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from offhook.tasks import end
from offhook_console.listeners import PING, Listener
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right

_LONGEST_ID = 100  # characters


async def live(request: Request, person: Person) -> Response:
    """The live feed, as server-sent events."""
    feed, phones = parts_of(request).feed_of(person), parts_of(request).phones_of(person)
    after = request.headers.get("last-event-id") or _after(request)
    pages = person.token is None and person.may(Right.CALLS)
    return stream(request, person, feed.listening(person.view, phones, after, pages=pages))


def stream(
    request: Request, person: Person | None, listening: AbstractContextManager[Listener]
) -> Response:
    """What a listener gets, as server-sent events.

    Args:
        person: None: a screen with a wall link.
    """
    if request.method == "HEAD":
        return Response(media_type=EventStream.media_type)
    if person is not None:
        listening = parts_of(request).streams.listening(person, listening)
    return EventStream(listening)


class EventStream(StreamingResponse):
    """Server-sent events: one write for all that have gathered.

    A response of Starlette, not of sse-starlette: that takes a third more CPU for each write to
    1,000 listeners, and 18 KB more for each of them. What it adds is here: `Feeds` pings, and the
    server ends the streams before it stops.
    """

    media_type = "text/event-stream"

    def __init__(self, listening: AbstractContextManager[Listener]) -> None:
        super().__init__((), headers={"X-Accel-Buffering": "no"})
        self._listening = listening

    async def stream_response(self, send: Send) -> None:
        """Send the events until there are no more."""
        with self._listening as listener:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            while messages := await listener.batch():
                body = b"".join([each.as_sse for each in messages])
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def live_socket(socket: WebSocket, person: Person) -> None:
    """Screen pops, as JSON messages of a WebSocket."""
    parts = parts_of(socket)
    phones, after = parts.phones_of(person), _after(socket)
    pops = parts.feed_of(person).listening(person.view, phones, after, pages=False)

    async def send() -> None:
        with parts.streams.listening(person, pops) as listener:
            while messages := await listener.batch():
                for message in messages:
                    if message is not PING:
                        await socket.send_text(message.as_json)
        await socket.close(1012)  # the console stops, or the session has ended: connect again

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
