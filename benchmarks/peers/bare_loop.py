"""POST the same JSON repeatedly: the highest rate that an HTTP client can reach.

python bare_loop.py aiohttp|httpx|offhook|pyreqwest COUNT CONCURRENCY
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import producer
import uvloop

BODY = json.dumps(producer.event(1, 1)).encode()
HEADERS = {"content-type": "application/json"}
Post = Callable[[], Awaitable[object]]


@asynccontextmanager
async def with_aiohttp(url: str, concurrency: int) -> AsyncIterator[Post]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def once() -> None:
            async with session.post(url, data=BODY, headers=HEADERS) as answer:
                await answer.read()

        yield once


@asynccontextmanager
async def with_httpx(url: str, concurrency: int) -> AsyncIterator[Post]:
    import httpx

    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(limits=limits) as client:
        yield lambda: client.post(url, content=BODY, headers=HEADERS)


@asynccontextmanager
async def with_pyreqwest(url: str, concurrency: int) -> AsyncIterator[Post]:
    from pyreqwest.client import ClientBuilder

    async with ClientBuilder().max_connections(concurrency).build() as client:

        async def once() -> None:
            request = client.post(url).headers(HEADERS).body_bytes(BODY).build()
            await (await request.send()).bytes()

        yield once


@asynccontextmanager
async def with_offhook(url: str, concurrency: int) -> AsyncIterator[Post]:
    from yarl import URL

    from offhook.http.http1 import Client

    client, target = Client({}), URL(url)
    yield lambda: client.request("POST", target, headers=HEADERS, body=BODY)
    client.close()


CLIENTS = {
    "aiohttp": with_aiohttp,
    "httpx": with_httpx,
    "offhook": with_offhook,
    "pyreqwest": with_pyreqwest,
}


async def post(client: str, count: int, concurrency: int) -> None:
    left = iter(range(count))
    async with CLIENTS[client](os.environ["TARGET"], concurrency) as once:

        async def one_after_the_other() -> None:
            for _ in left:
                await once()

        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))


async def main() -> None:
    await post(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    await asyncio.sleep(1)  # until the observer has read the count


if __name__ == "__main__":
    uvloop.run(main())
