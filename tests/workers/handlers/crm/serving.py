"""`Door`: a server that every request of a handler goes to, where it can be lost or held up.

Behind it is a stand-in for a cloud CRM, which keeps what it is given and refuses what the vendor's
documents refuse; every request must hold against the vendor's description, too. Or a real CRM.
"""

import asyncio
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from openapi_core import OpenAPI
from openapi_core.contrib.starlette import StarletteOpenAPIRequest, StarletteOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.unifiedapi.serving import serve


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answered:
    """One answer."""

    status: int = 200
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # instead of JSON


@dataclass
class Plan:
    """What becomes of a request that is not treated as usual.

    Attributes:
        when: how its line begins, such as `POST /v1`.
        skip: how many of these come through before.
        answer: the answer; None: none, the connection is cut.
        taken: whether the server does what it was asked, all the same.
    """

    when: str
    skip: int
    answer: Answered | None
    taken: bool


class Door:
    """What a handler takes for the CRM. A subclass says what is behind it.

    Attributes:
        url: its address, while it is open.
        requests: what came to it.
        violations: what is wrong with them although they were answered.
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.plans: list[Plan] = []
        self.violations: list[str] = []
        self.url = ""
        self._held: str | None = None

    @abstractmethod
    async def answered(self, asked: Asked, request: Request) -> Answered:
        """The answer to a request that nothing else was planned for."""

    def line(self, asked: Asked) -> str:
        """What a request is for, as `plan`, `cut` and `hold` name it."""
        return asked.line

    def plan(self, status: int = 200, json: Any = None, **rest: Any) -> None:
        """Give this answer to the next request (`when` and `skip` say to which one)."""
        when, skip = rest.pop("when", ""), rest.pop("skip", 0)
        self.plans.append(Plan(when, skip, Answered(status, json, **rest), taken=False))

    def cut(self, *, when: str = "", skip: int = 0, taken: bool = True) -> None:
        """Do what a request asks for, but cut the connection before the answer."""
        self.plans.append(Plan(when, skip, None, taken))

    def hold(self, when: str) -> None:
        """Do what such requests ask for, but answer none of them before `release`."""
        self._held = when

    def release(self) -> None:
        """Answer again."""
        self._held = None

    def lines(self) -> list[str]:
        """The requests since the last call of this, without queries."""
        lines = [self.line(asked) for asked in self.requests]
        self.requests.clear()
        return lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        path = scope["raw_path"].decode()
        asked = Asked(request.method, path, dict(request.query_params), request.headers, body)
        self.requests.append(asked)
        plan = self._planned(asked)
        answered = plan.answer if plan else None
        if plan is None or plan.taken:
            answered = await self.answered(asked, request)
        while self._held is not None and self.line(asked).startswith(self._held):
            await asyncio.sleep(0.01)
        if plan is not None and plan.answer is None:
            answered = None
        if answered is not None:
            await _response(answered)(scope, receive, send)
            return
        # More is promised than comes: uvicorn closes the connection.
        with suppress(RuntimeError):
            await Response(b"{", 200, {"Content-Length": "100"})(scope, receive, send)

    def _planned(self, asked: Asked) -> Plan | None:
        for plan in self.plans:
            if self.line(asked).startswith(plan.when):
                if plan.skip == 0:
                    self.plans.remove(plan)
                    return plan
                plan.skip -= 1
        return None


class StandIn(Door):
    """A vendor's API. A subclass says how it answers; the file `description` describes it."""

    description: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        described = (Path(__file__).parent / self.description).read_text()
        self._openapi = OpenAPI.from_dict(json.loads(described))
        self._checked: set[str] = set()

    @abstractmethod
    def refusal(self, asked: Asked) -> Answered | None:
        """The answer to somebody who may not ask."""

    @abstractmethod
    def answer(self, asked: Asked) -> Answered:
        """The answer to a request that the description allows."""

    async def answered(self, asked: Asked, request: Request) -> Answered:
        refusal = self.refusal(asked)
        if refusal is not None:
            return refusal
        described = StarletteOpenAPIRequest(request, asked.body)
        try:
            self._openapi.validate_request(described)
        except OpenAPIError as error:
            self.violations.append(f"{asked.line}: {error} ({error.__cause__})")
            return Answered(500, {"message": "not as described"})
        answered = self.answer(asked)
        if answered.status < 300 and asked.line not in self._checked:
            self._checked.add(asked.line)  # are the stand-in's own answers as described?
            self._openapi.validate_response(
                described, StarletteOpenAPIResponse(_response(answered))
            )
        return answered


def _response(answered: Answered) -> Response:
    if answered.body is not None:
        return Response(answered.body, answered.status, dict(answered.headers))
    if answered.json is None:
        return Response(None, answered.status, dict(answered.headers))
    body = json.dumps(answered.json).encode()
    return Response(body, answered.status, dict(answered.headers), "application/json")


@contextmanager
def standing(door: Door) -> Iterator[None]:
    """Open it. At the end every request must have been as described."""
    with serve(door) as url:
        door.url = url
        yield
    assert not door.violations
