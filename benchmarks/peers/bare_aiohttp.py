"""The most that aiohttp can do: POST the same JSON again and again.

python bare_aiohttp.py COUNT CONCURRENCY
"""

import asyncio
import os
import sys

import aiohttp
import producer
import uvloop


async def post(count: int, concurrency: int) -> None:
    body = producer.event(1, 1)
    left = iter(range(count))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one_after_the_other() -> None:
            for _ in left:
                async with session.post(os.environ["TARGET"], json=body) as answer:
                    await answer.read()

        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))


async def main() -> None:
    await post(int(sys.argv[1]), int(sys.argv[2]))
    await asyncio.sleep(1)  # for whoever measures


if __name__ == "__main__":
    uvloop.run(main())
