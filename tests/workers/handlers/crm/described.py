"""A vendor's API as described. A module of its own: openapi-core takes seconds to import."""

import json
from functools import cache
from pathlib import Path

from openapi_core import OpenAPI
from openapi_core.contrib.starlette import StarletteOpenAPIRequest, StarletteOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from starlette.requests import Request
from starlette.responses import Response


class Described:
    """Compares requests and responses with an API description. Use `described()` to get one."""

    def __init__(self, text: str) -> None:
        self._api = OpenAPI.from_dict(json.loads(text))

    def fault(self, request: Request, body: bytes) -> str:
        """Return what the description does not allow; nothing if it allows the request."""
        try:
            self._api.validate_request(StarletteOpenAPIRequest(request, body))
        except OpenAPIError as error:
            return f"{error} ({error.__cause__})"
        return ""

    def check(self, request: Request, body: bytes, response: Response) -> None:
        """Raise OpenAPIError if the description does not allow the response."""
        self._api.validate_response(
            StarletteOpenAPIRequest(request, body), StarletteOpenAPIResponse(response)
        )


@cache
def described(file: str) -> Described:
    """Return a description, with what has been compiled of it: once for all tests."""
    return Described((Path(__file__).parent / file).read_text())
