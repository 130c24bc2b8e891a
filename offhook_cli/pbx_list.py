"""The standard parameters of the PBX's lists, as options of commands."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer

from offhook.errors import ConfigError
from unifiedapi.listing import MAX_COUNT, FilterOp, Listing, ListOptions, SortOrder
from unifiedapi.resources import Resource

T = TypeVar("T", bound=Resource)

Count = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_COUNT, metavar="N", help="Maximum number of entries.", show_default="all"
    ),
]
StartIndex = Annotated[
    int, typer.Option(min=0, max=MAX_COUNT, metavar="N", help="Index of the first entry, from 0.")
]
FilterBy = Annotated[
    str | None,
    typer.Option(help="Filter by this field, named as in the API.", metavar="FIELD"),
]
FilterOpOption = Annotated[
    FilterOp | None,
    typer.Option("--filter-op", help="How to compare.", show_default="the PBX's own default"),
]
FilterValue = Annotated[
    list[str] | None,
    typer.Option(help="The value to compare with; for inArray, may be repeated.", metavar="VALUE"),
]
Fields = Annotated[
    str | None,
    typer.Option(
        help="Show only these fields, named as in the API, separated by commas.", metavar="LIST"
    ),
]
SortOrderOption = Annotated[
    SortOrder | None, typer.Option("--sort-order", help="The order of the entries.")
]


def list_options(
    *,
    count: int | None,
    start_index: int,
    filter_by: str | None,
    filter_op: FilterOp | None,
    filter_value: Sequence[str] | None,
    fields: str | None,
    sort_order: SortOrder | None,
) -> ListOptions:
    """Return the parameters of a list.

    Raises:
        ConfigError: an option lacks another one.
    """
    if filter_by is None and (filter_op or filter_value):
        raise ConfigError("name the field with --filter-by")
    options = ListOptions(start_index=start_index, fields=names(fields))
    if count is not None:
        options["count"] = count
    if filter_by is not None:
        options["filter_by"] = filter_by
    if filter_op is not None:
        options["filter_op"] = filter_op
    if filter_value:
        alone = len(filter_value) == 1 and filter_op != "inArray"
        options["filter_value"] = filter_value[0] if alone else filter_value
    if sort_order is not None:
        options["sort_order"] = sort_order
    return options


def names(fields: str | None) -> list[str]:
    """Return the names in a list such as `extension, status`."""
    return [name for name in map(str.strip, (fields or "").split(",")) if name]


async def read(listing: Listing[T], most: int | None) -> list[T]:
    """Return the first `most` entries; all if it is None."""
    found = []
    async for entry in listing:
        found.append(entry)
        if len(found) == most:
            break
    return found
