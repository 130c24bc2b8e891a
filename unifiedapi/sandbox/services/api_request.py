"""What the services share: the request, users and extensions, checking and writing values."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from unifiedapi.sandbox.collection import (
    Entry,
    FieldNames,
    collect,
    neighbours,
    read_query,
)
from unifiedapi.sandbox.refusal import Refused
from unifiedapi.sandbox.store import Extension, ExtensionKind, Level, Store, User

Member = TypeVar("Member", bound=IntEnum)


@dataclass(frozen=True)
class ApiRequest:
    """An API request of an authenticated user.

    Attributes:
        path: the segments after `/uapi`, decoded.
        query: names and values, in order.
        base: the URL of `/uapi` that the client used.
        numbers: whether to respond with numbers, where the documents' samples have strings.
    """

    user: User
    method: str
    path: Sequence[str]
    query: Sequence[tuple[str, str]]
    body: bytes
    base: str
    numbers: bool = False

    def json(self) -> dict[str, Any]:
        """Return the object in the body."""
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Refused("request_invalid") from error
        if not isinstance(data, dict):
            raise Refused("request_invalid")
        return data

    def number(self, value: int | None) -> int | str | None:
        """Return a number in the form of this response."""
        if value is None:
            return None
        return int(value) if self.numbers else str(int(value))

    def page(self, entries: Sequence[Entry], names: FieldNames) -> Entry | None:
        """Return the page of the entries that the query asks for."""
        collection = collect(entries, read_query(self.query, names), names)
        return None if collection is None else self.with_paging(collection)

    def with_paging(self, collection: Entry) -> Entry:
        links = {name: self._page_url(start) for name, start in neighbours(collection).items()}
        return collection | ({"paging": links} if links else {})

    def _page_url(self, start: int) -> str:
        query = [(name, value) for name, value in self.query if name != "startIndex"]
        path = "/".join(quote(segment, safe="@*+") for segment in self.path)
        return f"{self.base}/{path}?{urlencode([*query, ('startIndex', start)])}"


def acting_user(store: Store, request: ApiRequest, user: str) -> User | None:
    """Return the user in the path, or None for `@owner`, who depends on the extension."""
    if user in ("@me", "@viewer"):
        return request.user
    if user == "@owner":
        return None
    if not re.fullmatch(r"[0-9]{1,18}", user, re.ASCII) or int(user) not in store.users:
        raise Refused("user_invalid")
    meant = store.users[int(user)]
    if not manages(request.user, meant):
        raise Refused("access_denied")
    return meant


def extension_of(
    store: Store, request: ApiRequest, user: str, number: str, *kinds: ExtensionKind
) -> Extension:
    """Return the extension in the path. A short number is in the token user's organization."""
    acting = acting_user(store, request, user)
    full = number if "*" in number else f"{request.user.organization}*{number}"
    extension = store.extensions.get(full)
    if extension is None or extension.kind not in kinds:
        raise Refused("extension_invalid")
    owner = store.users[extension.user]
    if acting is None:
        if not manages(request.user, owner):
            raise Refused("access_denied")
    elif not manages(acting, owner):
        raise Refused("extension_invalid")
    return extension


def manages(user: User, other: User) -> bool:
    """Return whether the user may manage the other's extensions."""
    return (
        user.level is Level.ADMINISTRATOR
        or user.id == other.id
        or (user.level is Level.ORGANIZATION and user.organization == other.organization)
    )


def member(value: object, kind: type[Member], code: str) -> Member:
    """Return the member of an enumeration for a number or a string."""
    found = {str(int(each)): each for each in kind}.get(str(value))
    if found is None or isinstance(value, bool) or not isinstance(value, int | str):
        raise Refused(code)
    return found


def matching(value: object, pattern: str, code: str) -> str:
    """Return a string that matches a pattern."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise Refused(code)
    return value


def timestamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
