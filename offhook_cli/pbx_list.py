"""The standard parameters of the PBX's lists, as options of commands."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Annotated, Any, TypeVar

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


@dataclass(frozen=True)
class ListRequest:
    """What a command asks of a list.

    Attributes:
        count: maximum number of entries; None for all.
        fields: the fields to show; empty for the usual ones.
        options: the parameters of the request.
    """

    count: int | None
    fields: list[str]
    options: ListOptions


def with_list_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a list, which it gets as its argument `request`."""
    own, shared = (signature(each) for each in (command, list_request))
    parameters = [
        each
        for name, parameter in own.parameters.items()
        for each in (shared.parameters.values() if name == "request" else [parameter])
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        request = list_request(**{name: given.pop(name) for name in shared.parameters})
        command(**given, request=request)

    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def list_request(
    count: Count = None,
    start_index: StartIndex = 0,
    filter_by: FilterBy = None,
    filter_op: FilterOpOption = None,
    filter_value: FilterValue = None,
    fields: Fields = None,
    sort_order: SortOrderOption = None,
) -> ListRequest:
    """The request that these options ask for.

    Raises:
        ConfigError: an option lacks another one.
    """
    if filter_by is None and (filter_op or filter_value):
        raise ConfigError("name the field with --filter-by")
    shown = [name for name in map(str.strip, (fields or "").split(",")) if name]
    options = ListOptions(start_index=start_index, fields=shown)
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
    return ListRequest(count, shown, options)


async def read(listing: Listing[T], most: int | None) -> list[T]:
    """Return the first `most` entries; all if it is None."""
    found = []
    async for entry in listing:
        found.append(entry)
        if len(found) == most:
            break
    return found
