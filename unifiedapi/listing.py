"""Lists of the API, requested page by page."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar

from unifiedapi.errors import ApiError, UnexpectedAnswer
from unifiedapi.resources import Page, Resource

log = logging.getLogger("unifiedapi")

MAX_COUNT = 4999  # entries per page; the table says at most 5000, the error text below 5000
MAX_ENTRIES = 100_000  # of a list, ten times what the documents let a client reach

T = TypeVar("T", bound=Resource)

# "starts with" is v3's spelling, in the error table of List Presence.
FilterOp = Literal["equals", "contains", "startsWith", "starts with", "inArray", "present"]
SortOrder = Literal["ascending", "descending", "asc", "desc"]  # v3 and 4PSA's client; v5


class Requester(Protocol):
    """`UnifiedApi.request`."""

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
    ) -> Any: ...


class ListOptions(TypedDict, total=False):
    """The standard parameters of lists.

    Attributes:
        count: entries per page, 1 to 4999 (the default).
        start_index: index of the first entry, 0 to 4999.
        filter_by: the field to filter by; for presence only `extension`.
        filter_op: the PBX has its own default.
        filter_value: several values for `inArray`.
        fields: the fields to return, all by default. Those that identify the resource are added.
        sort_order: events are sorted by URL, presence by extension, agents by status, call records
            by `published`.
    """

    count: int
    start_index: int
    filter_by: str
    filter_op: FilterOp
    filter_value: str | Sequence[str]
    fields: Sequence[str]
    sort_order: SortOrder


class Listing(Generic[T]):
    """A list whose pages are requested as it is read: `async for entry in listing`."""

    def __init__(
        self,
        request: Requester,
        path: str,
        read: Callable[[object], T],
        options: ListOptions,
        *,
        identity: Sequence[str] = (),
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self._request = request
        self._path = path
        self._read = read
        self._parameters = {**(parameters or {}), **_parameters(identity, **options)}

    async def pages(self) -> AsyncIterator[Page]:
        """Yield the pages that have entries.

        Only `totalResults` tells whether there are more, and it may promise too much: the
        documents' own sample says 2 and has 1. So the list then ends with a warning in the log.

        Raises:
            UnexpectedAnswer: there are more than `MAX_ENTRIES` entries, perhaps without end.
        """
        first = start = int(self._parameters["startIndex"])
        total = None
        while True:
            page = await self._page(start, is_first=start == first)
            if page is not None and page.total_results is not None:
                total = page.total_results
            if page is None or not page.entry:
                if total is not None and start < total:
                    log.warning(
                        "the PBX counts %d entries, but sent %d: the list may be incomplete",
                        total - first,
                        start - first,
                    )
                return
            if start - first + len(page.entry) > MAX_ENTRIES:
                raise UnexpectedAnswer(f"the list has more than {MAX_ENTRIES} entries")
            yield page
            start += len(page.entry)
            if total is not None and start >= total:
                return

    async def _page(self, start: int, *, is_first: bool) -> Page | None:
        """Request the page that begins at `start`. None if there is no such page."""
        parameters = self._parameters | {"startIndex": str(start)}
        try:
            data = await self._request("GET", self._path, params=parameters)
        except ApiError as error:
            if is_first or error.status != 400:
                raise
            return None  # only the index is different: the PBX refuses it
        page = None if data is None else Page.read(single(data))
        if page is not None and page.start_index != start:
            if is_first:
                raise UnexpectedAnswer(
                    f"asked for entries from {start}, got entries from {page.start_index}"
                )
            return None  # an earlier page again
        return page

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for entry in page.entry:
                yield self._read(entry)


def single(data: object) -> Any:
    """Return the object in a response. v5's samples put it into an array."""
    if isinstance(data, list):
        if len(data) != 1:
            raise UnexpectedAnswer(f"the response is an array of {len(data)}, not one object")
        return data[0]
    return data


def _parameters(
    identity: Sequence[str],
    *,
    count: int = MAX_COUNT,
    start_index: int = 0,
    filter_by: str | None = None,
    filter_op: FilterOp | None = None,
    filter_value: str | Sequence[str] | None = None,
    fields: Sequence[str] = (),
    sort_order: SortOrder | None = None,
) -> dict[str, str]:
    """Return the query of a list. Arrays look as in the v5 page's example: `filterValue[0]=`."""
    parameters = {"count": str(count), "startIndex": str(start_index)}
    if filter_by is not None:
        parameters["filterBy"] = filter_by
    if filter_op is not None:
        parameters["filterOp"] = filter_op
    if isinstance(filter_value, str):
        parameters["filterValue"] = filter_value
    elif filter_value is not None:
        parameters |= {f"filterValue[{n}]": value for n, value in enumerate(filter_value)}
    if fields:
        parameters["fields"] = ",".join(dict.fromkeys([*identity, *fields]))
    if sort_order is not None:
        parameters["sortOrder"] = sort_order
    return parameters
