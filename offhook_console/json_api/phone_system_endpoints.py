"""The endpoints of the API that are about the PBX: extensions, and proof."""

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook.call import Kind
from offhook.extensions import ExtensionSettings
from offhook.operations.proof import KEPT_DAYS, DayProof
from offhook.provisioning.files import EXTENSION
from offhook_console.extension_query import (
    AT_ONCE,
    LONGEST,
    ExtensionRow,
    find_extensions,
    read_setup,
)
from offhook_console.extension_setup import PlanLine, SetupRun
from offhook_console.json_api.bodies import answer, read_body, read_parameters
from offhook_console.json_api.openapi_document import ApiEndpoint
from offhook_console.json_api.shapes import Limit
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right
from offhook_console.proof_query import all_proofs, read_days

_Number = Annotated[str, msgspec.Meta(pattern=f"^({EXTENSION.pattern})$")]


class ProofQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many days."""

    days: Annotated[int, msgspec.Meta(ge=1, le=KEPT_DAYS)] = 14


class ProofOfCalls(msgspec.Struct, frozen=True):
    """By PBX: the days that were compared, newest first."""

    pbxs: dict[str, list[DayProof]]


async def get_proof(request: Request, person: Person) -> Response:
    found = await all_proofs(parts_of(request), read_days(request))
    return answer(ProofOfCalls({each.name: each.days for each in found}))


class ExtensionQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The filters of extensions, and the length of the list.

    Attributes:
        drift: only those that differed from the PBX.
        phone: only those without a registered phone.
        q: a part of the number, the label or the owner.
        after: the cursor: those that come after this one.
    """

    drift: Literal["yes"] | None = None
    phone: Literal["gone"] | None = None
    q: str | None = None
    after: str | None = None
    limit: Limit = 100


class ExtensionState(msgspec.Struct, frozen=True, kw_only=True):
    """An extension.

    Attributes:
        phone: whether its phones are registered; null: that is not known.
        plan: what would be done on the PBX, as of the last comparison: `+ ~ - =`, and the words.
    """

    pbx: str
    extension: str
    label: str | None
    owner: str | None
    kind: str | None
    events: list[str] | None
    handlers: list[str] | None
    phone: bool | None
    plan: list[PlanLine]


class ExtensionList(msgspec.Struct, frozen=True):
    """Extensions, sorted.

    Attributes:
        total: number that match.
        next: the value of `after` for the next page; null: there is none.
    """

    extensions: list[ExtensionState]
    total: int
    next: str | None


class ExtensionRun(msgspec.Struct, frozen=True):
    """The last comparison or setup; null if there was none. `runs`: whether it goes on."""

    run: SetupRun | None
    runs: bool


class SetupRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set extensions up on the PBX.

    Attributes:
        extensions: none: all that differed when they were last compared.
        pbx: the only one if not given.
    """

    extensions: Annotated[list[_Number], msgspec.Meta(max_length=AT_ONCE)] = []
    pbx: str | None = None
    label: Annotated[str, msgspec.Meta(max_length=LONGEST)] | None = None
    kind: Kind | None = None


async def list_extensions(request: Request, person: Person) -> Response:
    parts, given = parts_of(request), read_parameters(request, ExtensionQuery)
    query = {"drift": given.drift or "", "phone": given.phone or "", "q": given.q or ""}
    found = await find_extensions(parts, query, await parts.setup.drift())
    after = tuple((given.after or "").split("/", 1))
    rows = [each for each in found.rows if each.name > after]
    more = "/".join(rows[given.limit - 1].name) if len(rows) > given.limit else None
    shown = [_state(each) for each in rows[: given.limit]]
    return answer(ExtensionList(shown, len(found.rows), more))


async def get_extension_run(request: Request, person: Person) -> Response:
    return answer(ExtensionRun(*await parts_of(request).setup.state()))


async def compare_extensions(request: Request, person: Person) -> Response:
    setup = parts_of(request).setup
    await setup.start_comparison(person.name)
    return answer(ExtensionRun(*await setup.state()), 202)


async def set_up_extensions(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    wanted = await read_body(request, SetupRequest)
    given: dict[tuple[str, str], ExtensionSettings] | None = None
    if wanted.extensions:
        said = {"pbx": wanted.pbx, "label": wanted.label, "kind": wanted.kind}
        fields = {name: value for name, value in said.items() if value is not None}
        fields["extensions"] = " ".join(wanted.extensions)
        pbx, settings = await read_setup(parts, fields)
        given = {(pbx, number): each for number, each in settings.items()}
    await parts.setup.start_setup(person.name, given)
    return answer(ExtensionRun(*await parts.setup.state()), 202)


def _state(row: ExtensionRow) -> ExtensionState:
    settings = row.settings
    return ExtensionState(
        pbx=row.pbx,
        extension=row.number,
        label=settings.label,
        owner=settings.owner,
        kind=settings.kind,
        events=None if settings.events is None else [each.value for each in settings.events],
        handlers=None if settings.handlers is None else [*settings.handlers],
        phone=row.phone,
        plan=row.plan,
    )


_EXTENSIONS = "/api/v1/extensions"
PHONE_SYSTEM_ENDPOINTS = (
    ApiEndpoint("GET", _EXTENSIONS, list_extensions, Right.DELIVERIES,
             "List the extensions, and what differs on the PBX.", ExtensionList,
             query=ExtensionQuery),
    ApiEndpoint("GET", f"{_EXTENSIONS}/run", get_extension_run, Right.DELIVERIES,
             "Get how far the comparison or setup of extensions is.", ExtensionRun),
    ApiEndpoint("POST", f"{_EXTENSIONS}/compare", compare_extensions, Right.REPAIR,
             "Compare all extensions with the PBX, in the background.", ExtensionRun, status=202),
    ApiEndpoint("POST", f"{_EXTENSIONS}/setup", set_up_extensions, Right.REPAIR,
             "Set extensions up on the PBX, in the background.", ExtensionRun,
             body=SetupRequest, status=202),
    ApiEndpoint("GET", "/api/v1/proof", get_proof, Right.DELIVERIES,
             "Compare the PBX's own records with the calls here, day by day.", ProofOfCalls,
             query=ProofQuery),
)  # fmt: skip
