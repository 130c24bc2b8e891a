"""Lists of the API, requested page by page."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar

from unifiedapi.errors import UnexpectedAnswer
from unifiedapi.resources import Page, Resource

MAX_COUNT = 4999  # entries per page; the table says at most 5000, the error text below 5000

T = TypeVar("T", bound=Resource)

FilterOp = Literal["equals", "contains", "startsWith", "inArray", "present"]
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

        Only `totalResults` tells whether there are more: the documents' own sample has a page with
        fewer entries than it says.
        """
        start = int(self._parameters["startIndex"])
        while True:
            parameters = self._parameters | {"startIndex": str(start)}
            data = await self._request("GET", self._path, params=parameters)
            if data is None:
                return
            page = Page.read(single(data))
            if page.start_index != start:
                raise UnexpectedAnswer(
                    f"asked for entries from {start}, got entries from {page.start_index}"
                )
            if not page.entry:
                return
            yield page
            start += len(page.entry)
            if page.total_results is not None and start >= page.total_results:
                return

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
