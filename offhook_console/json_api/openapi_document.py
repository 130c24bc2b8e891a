"""The OpenAPI 3.1 document, made from the routes and their types."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook_console.people import Person, Right
from offhook_console.problem_details import Problem

_REF = "#/components/schemas/{name}"


@dataclass(frozen=True)
class ApiEndpoint:
    """One operation of the API.

    Attributes:
        query, body: the types of the parameters and of the request's body.
        answer: the type of the response's body; None: it has none.
    """

    method: str
    path: str
    endpoint: Callable[[Request, Person], Awaitable[Response]]
    right: Right
    summary: str
    answer: Any
    query: Any = None
    body: Any = None
    status: int = 200

    @property
    def changes(self) -> bool:
        """Whether it changes something; then it takes an Idempotency-Key."""
        return self.method != "GET"


def openapi(endpoints: Sequence[ApiEndpoint]) -> dict[str, Any]:
    """The OpenAPI document of these endpoints."""
    types = {Problem}
    for each in endpoints:
        types |= {kind for kind in (each.query, each.body, each.answer) if kind is not None}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        path = re.sub(r"{(\w+):path}", r"{\1}", each.path)
        paths.setdefault(path, {})[each.method.lower()] = _operation(each, components)
    queries = {each.query.__name__ for each in endpoints if each.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Offhook",
            "version": "1",
            "description": "What the pages of the console show and do, for programs.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": {n: s for n, s in sorted(components.items()) if n not in queries},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(endpoint: ApiEndpoint, components: dict[str, Any]) -> dict[str, Any]:
    error = {"content": {"application/problem+json": {"schema": _ref(Problem)}}}
    done: dict[str, Any] = {"description": "Done."}
    if endpoint.answer is not None:
        done["content"] = {"application/json": {"schema": _ref(endpoint.answer)}}
    operation: dict[str, Any] = {
        "operationId": endpoint.endpoint.__name__,
        "summary": endpoint.summary,
        "description": f"Needs the scope `{endpoint.right}`.",
        "responses": {
            str(endpoint.status): done,
            "default": {"description": "An error (RFC 9457).", **error},
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)", endpoint.path)
    ]
    if endpoint.query is not None:
        schema = components[endpoint.query.__name__]
        parameters += [
            {"name": name, "in": "query", "schema": each}
            for name, each in schema["properties"].items()
        ]
    if endpoint.changes:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A request repeated with the same key within a day is done once.",
                "schema": {"type": "string", "maxLength": 200},
            }
        )
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        content = {"application/json": {"schema": _ref(endpoint.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _ref(kind: Any) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
