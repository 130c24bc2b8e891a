"""Idempotency keys: a repeated request is done once, and gets the first answer again."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook.inbox import keys
from offhook_console.access import Endpoint
from offhook_console.parts import parts_of
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError, problem

_LONGEST = 200  # characters of a key
_KEEP = 86_400  # seconds
_IN_PROGRESS = 60  # seconds, in case the process dies before it answers


class KeptAnswer(msgspec.Struct, frozen=True):
    """What a request was answered.

    Attributes:
        wanted: digest of the request's query and body.
        status: None: it is in progress.
    """

    wanted: str
    status: int | None = None
    body: str = ""


class OneTimeAnswer(Response):
    """An answer with a secret, which is kept nowhere.

    Args:
        later: the body that a repeated request gets.
    """

    def __init__(self, content: bytes, later: bytes, status: int) -> None:
        super().__init__(content, status, media_type="application/json")
        self.later = later


async def once(request: Request, person: Person, endpoint: Endpoint) -> Response:
    """Call an endpoint; with a key that was used before, return its answer of then.

    Raises:
        ConsoleError: the key was used for another request, or that request is in progress.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return await endpoint(request, person)
    if len(key) > _LONGEST:
        raise ConsoleError(400, f"Idempotency-Key: is longer than {_LONGEST} characters.")
    redis = parts_of(request).inbox.redis
    where = _key(person, f"{request.method} {request.url.path}", key)
    said = request.url.query.encode() + b"\0" + await request.body()
    wanted = hashlib.blake2b(said, digest_size=16).hexdigest()
    begun = msgspec.json.encode(KeptAnswer(wanted))
    if not await redis.set(where, begun, nx=True, ex=_IN_PROGRESS):
        return await _again(redis, where, wanted)
    try:
        response = await endpoint(request, person)
    except BaseException as error:
        if not isinstance(error, ConsoleError) or not error.may_be_done:
            await redis.delete(where)  # it may be tried again
            raise
        response = problem(error.status, error.detail)
    kept = KeptAnswer(wanted, response.status_code, _to_keep(response).decode())
    await redis.set(where, msgspec.json.encode(kept), ex=_KEEP)
    return response


@asynccontextmanager
async def first_time(request: Request, person: Person, key: str) -> AsyncIterator[bool]:
    """Whether a page's form is sent for the first time. A reload sends it again.

    What it asks for is done in this context. If that fails, the form may be sent again, corrected.

    Args:
        key: in the form; another one each time the page is shown.
    """
    redis, where = parts_of(request).inbox.redis, _key(person, request.url.path, key[:_LONGEST])
    first = bool(await redis.set(where, "", nx=True, ex=_KEEP))
    try:
        yield first
    except BaseException:
        if first:
            await redis.delete(where)
        raise


async def _again(redis: Any, where: str, wanted: str) -> Response:
    stored = await redis.get(where)
    kept = None if stored is None else msgspec.json.decode(stored, type=KeptAnswer)
    if kept is not None and kept.wanted != wanted:
        raise ConsoleError(409, "Idempotency-Key: was used for another request.")
    if kept is None or kept.status is None:
        raise ConsoleError(409, "Idempotency-Key: the first request with it is in progress.")
    body = kept.body.encode()
    kind = "application/problem+json" if kept.status >= 400 else "application/json"
    return Response(body, kept.status, media_type=kind if body else None)


def _key(person: Person, what: str, key: str) -> str:
    said = f"{person.tenant}\0{person.name}\0{what}\0{key}"
    digest = hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return keys.request(digest)


def _to_keep(response: Response) -> bytes:
    return response.later if isinstance(response, OneTimeAnswer) else bytes(response.body)
