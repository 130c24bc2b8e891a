"""The load of a storm: callers as behind a PBX, and one who floods a URL that has leaked."""

import asyncio
import sys
import threading
import time
from collections.abc import MutableMapping
from contextlib import suppress

import aiohttp

from offhook.callback_url import callback_url
from tests.chaos.audit import Event
from tests.conftest import SECRET

EXTENSIONS = tuple(str(number) for number in range(210, 222))
LEAKED = "666"  # the extension whose URL is flooded
_STRANGER = "127.0.0.2"


class Callers(threading.Thread):
    """Calls that each send their events in turn, as a PBX does: without retries.

    A call's name begins with its extension.
    """

    def __init__(self, port: int, *, calls: int = 12, per_call: int = 10, pause: float = 0.08):
        super().__init__(name="callers", daemon=True)
        self.accepted: dict[Event, float] = {}  # accepted events, and when
        self.sent = 0
        self.stopped = 0.0  # when
        self._port = port
        self._calls, self._per_call, self._pause = calls, per_call, pause
        self._enough = threading.Event()
        self._numbers = iter(range(sys.maxsize))

    def run(self) -> None:
        asyncio.run(self._run())

    def stop(self) -> None:
        """Return when the requests in flight have their responses."""
        self.stopped = time.time()
        self._enough.set()
        self.join()

    async def _run(self) -> None:
        limit = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(timeout=limit) as session:
            await asyncio.gather(
                *(
                    self._call_on(session, EXTENSIONS[number % len(EXTENSIONS)])
                    for number in range(self._calls)
                )
            )

    async def _call_on(self, session: aiohttp.ClientSession, extension: str) -> None:
        url = url_of(self._port, extension)
        while not self._enough.is_set():
            call = f"{extension}-{next(self._numbers)}"
            for n in range(self._per_call):
                self.sent += 1
                await send(session, url, call, n, self.accepted)
                await asyncio.sleep(self._pause)


def flood(port: int, callers: Callers, name: str, events: int) -> None:
    """Send callbacks through the leaked URL as fast as they are answered.

    Those that are answered 200 count like all others.

    Args:
        name: unique, for the CallIDs.
        events: number of callbacks.
    """
    per_call = 5
    numbers = iter(range(events // per_call))
    url = url_of(port, LEAKED)
    callers.sent += events

    async def one_after_the_other(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            for n in range(per_call):
                await send(session, url, f"{LEAKED}-{name}-{number}", n, callers.accepted)

    async def run() -> None:
        connector = aiohttp.TCPConnector(local_addr=(_STRANGER, 0))
        limit = aiohttp.ClientTimeout(total=15)
        async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
            await asyncio.gather(*(one_after_the_other(session) for _ in range(20)))

    asyncio.run(run())


async def send(
    session: aiohttp.ClientSession,
    url: str,
    call: str,
    n: int,
    accepted: MutableMapping[Event, float],
) -> None:
    """Make a callback; note it if it is accepted."""
    form: dict[str, str | int] = {"CallID": call, "CallFlow": "IN", "n": n}
    with suppress(aiohttp.ClientError, TimeoutError):  # no response: not accepted
        async with session.post(url, data=form) as answer:
            if answer.status == 200:
                accepted[call, n] = time.time()


def url_of(port: int, extension: str) -> str:
    """Return the callback URL of an extension."""
    return callback_url(f"http://127.0.0.1:{port}", SECRET, "main", f"0003*{extension}", "dial-in")
