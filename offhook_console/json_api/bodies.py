"""Reading the requests of the API, and writing its answers."""

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook_console.problem_details import ConsoleError

T = TypeVar("T")


async def read_body(request: Request, kind: type[T]) -> T:
    """Read the body of a request.

    Raises:
        ConsoleError: it is not of this type.
    """
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.MsgspecError as error:
        raise ConsoleError(400, f"The body is wrong: {error}.") from error


def read_parameters(request: Request, kind: type[T]) -> T:
    """Read the query of a request.

    Raises:
        ConsoleError: it is not of this type.
    """
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConsoleError(400, f"A parameter is wrong: {error}.") from error


def encode(value: Any) -> bytes:
    """The JSON of an answer."""
    return msgspec.json.encode(value)


def answer(value: Any, status: int = 200) -> Response:
    """An answer with a body."""
    return Response(encode(value), status, media_type="application/json")
