"""A WebSocket of the console, without a network."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message


class Socket:
    """An open connection: `None` in place of a message is its end."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()

    async def json(self) -> Any:
        """The next message, decoded."""
        async with asyncio.timeout(30):
            message = await self.sent.get()
        assert message["type"] == "websocket.send", message
        return json.loads(message["text"])


@asynccontextmanager
async def connected(
    app: ASGIApp, headers: dict[str, str], subprotocols: tuple[str, ...] = (), query: str = ""
) -> AsyncIterator[tuple[Socket, Message]]:
    """Open `/live`. Yield the connection, and the first answer of the app."""
    socket = Socket()
    await socket.incoming.put({"type": "websocket.connect"})
    scope = {
        "type": "websocket",
        "path": "/live",
        "raw_path": b"/live",
        "query_string": query.encode(),
        "scheme": "ws",
        "headers": [(n.lower().encode(), v.encode()) for n, v in headers.items()],
        "subprotocols": list(subprotocols),
        "server": ("console.test", 80),
        "client": ("127.0.0.1", 1),
        "extensions": {},
    }
    running = asyncio.ensure_future(app(scope, socket.incoming.get, socket.sent.put))
    async with asyncio.timeout(30):
        first = await socket.sent.get()
    yield socket, first
    await socket.incoming.put({"type": "websocket.disconnect", "code": 1000})
    async with asyncio.timeout(30):
        await running
