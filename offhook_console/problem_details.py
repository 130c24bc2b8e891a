"""Errors of the API as RFC 9457 problem details; of a page, as a page."""

from http import HTTPStatus

import msgspec
from starlette.responses import Response


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error.

    Attributes:
        title: the name of the status.
        detail: what is wrong, and what to do.
    """

    title: str
    status: int
    detail: str
    type: str = "about:blank"


class ConsoleError(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        detail: what is wrong, and what to do.
        may_be_done: whether it may have been done nevertheless, so that a repeated request must
            not do it again.
    """

    def __init__(self, status: int, detail: str, *, may_be_done: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.may_be_done = may_be_done


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """The response with an error of the API."""
    body = Problem(HTTPStatus(status).phrase, status, detail)
    return Response(
        msgspec.json.encode(body), status, headers, media_type="application/problem+json"
    )
