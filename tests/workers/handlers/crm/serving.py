"""`Door`: a proxy in front of a CRM, where tests can lose, delay or replace responses.

Behind it is a stand-in for a cloud CRM, which refuses what the vendor's documents refuse and
validates every request against the vendor's API description; or a real CRM.
"""

import asyncio
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
    """What to do with one request.

    Attributes:
        when: the start of its line, such as `POST /v1`.
        skip: number of such requests to treat normally first.
        answer: the response; None: cut the connection.
        taken: whether the server executes the request.
    """

    when: str
    skip: int
    answer: Answered | None
    taken: bool


class Door:
    """The proxy. A subclass says what is behind it.

    Attributes:
        url: its address, while it is open.
        requests: the requests it has received.
        violations: requests that the API description does not allow.
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.plans: list[Plan] = []
        self.violations: list[str] = []
        self.url = ""
        self._held: str | None = None

    @abstractmethod
    async def answered(self, asked: Asked, request: Request) -> Answered:
        """The normal response to a request."""

    def line(self, asked: Asked) -> str:
        """The line by which `plan`, `cut` and `hold` recognize a request."""
        return asked.line

    def plan(self, status: int = 200, json: Any = None, **rest: Any) -> None:
        """Send this response to the next request that `when` and `skip` select."""
        when, skip = rest.pop("when", ""), rest.pop("skip", 0)
        self.plans.append(Plan(when, skip, Answered(status, json, **rest), taken=False))

    def cut(self, *, when: str = "", skip: int = 0, taken: bool = True) -> None:
        """Cut the connection before the response to a request."""
        self.plans.append(Plan(when, skip, None, taken))

    def hold(self, when: str) -> None:
        """Execute such requests, but hold their responses until `release`."""
        self._held = when

    def release(self) -> None:
        """Send responses again."""
        self._held = None

    def lines(self) -> list[str]:
        """The requests since the last call, without their queries."""
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
        # A body shorter than its Content-Length makes uvicorn close the connection.
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
    """A vendor's API, described by the file `description`. A subclass writes the responses."""

    description: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        from tests.workers.handlers.crm.described import described  # only where it is needed

        self._described = described(self.description)
        self._checked: set[str] = set()

    @abstractmethod
    def refusal(self, asked: Asked) -> Answered | None:
        """The response to a request without access; None: it has access."""

    @abstractmethod
    def answer(self, asked: Asked) -> Answered:
        """The response to a request that the description allows."""

    async def answered(self, asked: Asked, request: Request) -> Answered:
        refusal = self.refusal(asked)
        if refusal is not None:
            return refusal
        fault = self._described.fault(request, asked.body)
        if fault:
            self.violations.append(f"{asked.line}: {fault}")
            return Answered(500, {"message": "not as described"})
        answered = self.answer(asked)
        if answered.status < 300 and asked.line not in self._checked:
            self._checked.add(asked.line)  # the stand-in's own responses must be as described
            self._described.check(request, asked.body, _response(answered))
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
    """Open the door. At the end, check that every request was as described."""
    with serve(door) as url:
        door.url = url
        yield
    assert not door.violations
