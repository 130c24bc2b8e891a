"""Paging, filtering, sorting and fields, compared with a simple model."""

from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unifiedapi.sandbox.collection import EVENTS, collect, neighbours, read_query
from unifiedapi.sandbox.refusal import Refused

words = st.text(alphabet="abA ✓%&=,[", max_size=3)
entries = st.lists(
    st.fixed_dictionaries(
        {"id": words, "url": words, "note": words, "status": st.sampled_from("01")}
    ),
    max_size=12,
)
names = st.sampled_from(["id", "url", "note", "status"])
operators = st.sampled_from(
    ["equals", "contains", "startsWith", "starts with", "inArray", "present", None]
)
orders = st.sampled_from(["asc", "ascending", "desc", "descending", None])
array_keys = st.sampled_from(["filterValue[{n}]", "filterValue[]", "filterValue"])


def model(
    everything: list[dict[str, str]],
    start: int,
    count: int,
    by: str | None,
    op: str | None,
    values: list[str],
    order: str | None,
    fields: list[str],
) -> dict[str, Any] | None:
    found = []
    for entry in everything:
        if by is None:
            found.append(entry)
        elif op == "inArray":
            found += [entry] if entry[by] in values else []
        elif op == "present":
            found += [entry] if len(entry[by]) > 0 else []
        elif op == "contains":
            found += [entry] if entry[by].find(values[0]) >= 0 else []
        elif op in ("startsWith", "starts with"):
            found += [entry] if entry[by][: len(values[0])] == values[0] else []
        else:
            found += [entry] if entry[by] == values[0] else []
    if order in ("asc", "ascending"):
        found = sorted(found, key=lambda entry: entry["url"])
    elif order is not None:
        for url in sorted({entry["url"] for entry in found}):  # stable
            found = [e for e in found if e["url"] == url] + [e for e in found if e["url"] != url]
    page = [found[n] for n in range(len(found)) if start <= n < start + count]
    if not page:
        return None
    wanted = fields or ["id", "url", "note", "status"]
    return {
        "startIndex": start,
        "totalResults": len(found),
        "itemsPerPage": count,
        "filtered": by is not None,
        "sorted": order is not None,
        "entry": [{k: v for k, v in entry.items() if k in wanted} for entry in page],
    }


@given(
    everything=entries,
    start=st.integers(0, 14),
    count=st.integers(1, 14),
    by=st.none() | names,
    op=operators,
    values=st.lists(words.filter(bool), min_size=1, max_size=3),
    order=orders,
    fields=st.lists(names, max_size=3),
    key=array_keys,
    comma=st.sampled_from([",", ", "]),
)
def test_page_is_the_same_as_the_models(
    everything: list[dict[str, str]],
    start: int,
    count: int,
    by: str | None,
    op: str | None,
    values: list[str],
    order: str | None,
    fields: list[str],
    key: str,
    comma: str,
) -> None:
    values = values if op == "inArray" else values[:1]
    pairs = [("startIndex", str(start)), ("count", str(count)), ("unknown", "1")]
    pairs += [("filterBy", by)] if by is not None else []
    pairs += [("filterOp", op)] if op is not None else []
    pairs += [(key.format(n=n), value) for n, value in enumerate(values)]
    pairs += [("sortOrder", order)] if order is not None else []
    pairs += [("fields", comma.join(fields))] if fields else []
    sent = parse_qsl(urlencode(pairs), keep_blank_values=True)
    got = collect(everything, read_query(sent, EVENTS), EVENTS)
    assert got == model(everything, start, count, by, op, values, order, fields)


@given(entries, st.integers(1, 14))
def test_consecutive_pages_have_all_entries(everything: list[dict[str, str]], count: int) -> None:
    gathered: list[dict[str, str]] = []
    start: int | None = 0 if everything else None
    while start is not None:
        pairs = [("count", str(count)), ("startIndex", str(start))]
        page = collect(everything, read_query(pairs, EVENTS), EVENTS)
        assert page is not None
        assert neighbours(page).get("prev") == (max(0, start - count) if start else None)
        gathered += page["entry"]
        start = neighbours(page).get("next")
    assert gathered == everything


def test_invalid_parameters_are_refused() -> None:
    for query, code in (
        ("fields=", "fields_invalid"),
        ("fields=id,", "fields_invalid"),
        ("fields=id&fields[]=nothing", "fields_invalid"),
        ("count=", "count_invalid"),
        ("count=0", "count_invalid"),
        ("count=5000", "count_invalid"),
        ("count=1e3", "count_invalid"),
        ("count=٣", "count_invalid"),
        ("count=" + "9" * 5000, "count_invalid"),
        ("count=5000&startIndex=x", "count_invalid"),
        ("startIndex=-1", "startindex_invalid"),
        ("startIndex=5000", "startindex_invalid"),
        ("startIndex=", "startindex_invalid"),
        ("filterBy=links&filterValue=1", "filterby_invalid"),
        ("filterBy=", "filterby_invalid"),
        ("filterBy=id&filterOp=starts&filterValue=1", "filterop_invalid"),
        ("filterOp=", "filterop_invalid"),
        ("filterBy=id", "filtervalue_invalid"),
        ("filterBy=id&filterValue=", "filtervalue_invalid"),
        ("filterBy=id&filterValue=1&filterValue=2", "filtervalue_invalid"),
        ("filterBy=id&filterOp=inArray&filterValue[0]=1&filterValue[1]=", "filtervalue_invalid"),
        ("sortOrder=", "sortorder_invalid"),
        ("sortOrder=ASC", "sortorder_invalid"),
    ):
        with pytest.raises(Refused) as caught:
            read_query(parse_qsl(query, keep_blank_values=True), EVENTS)
        assert caught.value.body["error"]["code"] == code, query


def test_blank_in_fields_and_in_starts_with_is_accepted() -> None:
    sent = "fields=id,+status&filterBy=url&filterOp=starts+with&filterValue=b"
    query = read_query(parse_qsl(sent), EVENTS)
    found = [{"id": n, "url": n, "status": "1"} for n in ("ab", "ba")]
    page = collect(found, query, EVENTS)
    assert page is not None
    assert page["entry"] == [{"id": "ba", "status": "1"}]


def test_unknown_and_unused_parameters_are_accepted() -> None:
    for query in ("count=1&count=4999", "sortOder=asc", "filterValue=x", ""):
        read_query(parse_qsl(query, keep_blank_values=True), EVENTS)
