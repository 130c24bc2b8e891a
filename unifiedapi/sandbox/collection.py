"""Paging, filtering, sorting and choosing fields, the same for every list request.

Pure. Sources: VoipNow wiki, List Presence (v3) and Presence Service (v5); where they disagree on
limits and words, both are accepted. For call records, List CDR and CDR Resource (v3).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unifiedapi.sandbox.refusal import Refused

DEFAULT_COUNT = 20
LIMIT = 5000  # count and startIndex must be below it

Entry = dict[str, Any]


def _starts(value: str, wanted: Sequence[str]) -> bool:
    return value.startswith(wanted[0])


OPERATORS: dict[str, Callable[[str, Sequence[str]], bool]] = {
    "equals": lambda value, wanted: value == wanted[0],
    "contains": lambda value, wanted: wanted[0] in value,
    "startsWith": _starts,
    "starts with": _starts,  # v3
    "inArray": lambda value, wanted: value in wanted,
    "present": lambda value, wanted: value != "",
}
_DESCENDING = {"asc": False, "ascending": False, "desc": True, "descending": True}


@dataclass(frozen=True)
class FieldNames:
    """The names of a resource's fields that the parameters may use."""

    fields: frozenset[str]
    filter_by: frozenset[str]
    sort_by: str


EVENTS = FieldNames(
    frozenset({"type", "id", "method", "url", "status", "note", "modified", "links"}),
    frozenset({"type", "id", "method", "url", "status", "note", "modified"}),
    "url",
)
PRESENCE = FieldNames(
    frozenset({"extension", "status", "registration"}), frozenset({"extension"}), "extension"
)
_AGENT = frozenset({"agentNumber", "status", "queue", "type", "identifier"})
AGENTS = FieldNames(_AGENT | {"links"}, _AGENT, "status")
_RECORD = {"id", "extension", "ownerId", "ownerName", "published", "answered", "phoneCallView"}
# According to 4PSA, `fields` takes these, the fields of the statistics beside the records.
_STATISTICS = {"type", "total", "unanswered", "busy", "failed", "unknown", "unallowed", "answered"}
RECORDS = FieldNames(
    frozenset(_RECORD | _STATISTICS),
    frozenset({"source", "destination", "published", "answered"}),
    "published",
)


@dataclass(frozen=True)
class Query:
    """The standard request parameters, validated."""

    count: int
    start: int
    fields: frozenset[str] | None  # None for all
    filter_by: str | None
    filter_op: str
    filter_value: tuple[str, ...]
    descending: bool | None  # None for unsorted

    def narrowed(self, entry: Entry) -> Entry:
        """Return only the requested fields."""
        fields = self.fields
        return entry if fields is None else {n: v for n, v in entry.items() if n in fields}


def read_query(pairs: Iterable[tuple[str, str]], names: FieldNames) -> Query:
    """Read the parameters of a list request. The last of duplicates counts, as in PHP.

    Raises:
        Refused: a parameter is not valid.
    """
    single = dict(pairs := list(pairs))
    # v3's example has a blank after the comma: `extension, id, answered`.
    fields = [name.strip() for value in _array(pairs, "fields") for name in value.split(",")]
    if not names.fields.issuperset(fields):
        raise Refused("fields_invalid")
    count = _number(single.get("count", str(DEFAULT_COUNT)), 1, "count_invalid")
    by = single.get("filterBy")
    if by is not None and by not in names.filter_by:
        raise Refused("filterby_invalid")
    op = single.get("filterOp", "equals")
    if op not in OPERATORS:
        raise Refused("filterop_invalid")
    value = _array(pairs, "filterValue")
    if by is not None and op != "present" and not _fits(op, value):
        raise Refused("filtervalue_invalid")
    order = single.get("sortOrder")
    if order is not None and order not in _DESCENDING:
        raise Refused("sortorder_invalid")
    start = _number(single.get("startIndex", "0"), 0, "startindex_invalid")
    return Query(
        count=count,
        start=start,
        fields=frozenset(fields) if fields else None,
        filter_by=by,
        filter_op=op,
        filter_value=tuple(value),
        descending=None if order is None else _DESCENDING[order],
    )


def collect(entries: Iterable[Entry], query: Query, names: FieldNames) -> Entry | None:
    """Return one page of the matching entries, or None if it is empty."""
    return page_of([query.narrowed(e) for e in select(entries, query, names)], query)


def select(entries: Iterable[Entry], query: Query, names: FieldNames) -> list[Entry]:
    """Filter and sort the entries. If a field is a list, one value must match."""
    found = list(entries)
    if query.filter_by is not None:
        keeps, by = OPERATORS[query.filter_op], query.filter_by
        found = [
            e for e in found if any(keeps(v, query.filter_value) for v in _texts(e.get(by, "")))
        ]
    if query.descending is not None:
        found.sort(key=lambda e: str(e.get(names.sort_by, "")), reverse=query.descending)
    return found


def page_of(found: Sequence[Entry], query: Query) -> Entry | None:
    """Return one page of the selected entries, or None if it is empty."""
    page = found[query.start : query.start + query.count]
    if not page:
        return None
    return {
        "startIndex": query.start,
        "totalResults": len(found),
        "itemsPerPage": query.count,
        "filtered": query.filter_by is not None,
        "sorted": query.descending is not None,
        "entry": page,
    }


def neighbours(collection: Mapping[str, Any]) -> dict[Literal["next", "prev"], int]:
    """Return the startIndex of the next and the previous page, if they exist."""
    start, count = collection["startIndex"], collection["itemsPerPage"]
    pages: dict[Literal["next", "prev"], int] = {}
    if start + count < min(collection["totalResults"], LIMIT):
        pages["next"] = start + count
    if start > 0:
        pages["prev"] = max(0, start - count)
    return pages


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _array(pairs: Iterable[tuple[str, str]], name: str) -> list[str]:
    """Return the values of `name=`, `name[]=` and `name[0]=`, which may be repeated."""
    form = re.compile(rf"{name}(\[[0-9]*\])?", re.ASCII)
    return [value for key, value in pairs if form.fullmatch(key)]


def _fits(operator: str, value: Sequence[str]) -> bool:
    return bool(value) and all(value) and (operator == "inArray" or len(value) == 1)


def _number(text: str, least: int, code: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or not least <= int(text) < LIMIT:
        raise Refused(code)
    return int(text)
