"""Typical Starlette apps that accept a callback; uvicorn runs them."""

import asyncio
import os

from redis import Redis
from rq import Queue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queue = Queue(connection=Redis.from_url(os.environ["REDIS_URL"]))


async def nothing(request: Request) -> Response:
    return Response(status_code=204)


async def read(request: Request) -> Response:
    async with request.form() as form:
        return Response(status_code=204 if form["CallID"] else 400)


async def enqueue(request: Request) -> Response:
    async with request.form() as form:
        await asyncio.to_thread(queue.enqueue, "jobs.handle", dict(form))
    return Response(status_code=204)


PATH = "/callback/{pbx}/{extension}/{type}/{token}"
bare = Starlette(routes=[Route(PATH, nothing, methods=["POST"])])
form = Starlette(routes=[Route(PATH, read, methods=["POST"])])
rq = Starlette(routes=[Route(PATH, enqueue, methods=["POST"])])
