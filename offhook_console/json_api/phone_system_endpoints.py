"""The endpoints of the API that are about the PBX: extensions, and proof."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook.extensions import ExtensionSettings
from offhook.operations.proof import DayProof
from offhook_console.extension_setup import PlanLine, SetupRun
from offhook_console.json_api import shapes
from offhook_console.json_api.openapi_document import ApiEndpoint
from offhook_console.pages.extensions_page import ExtensionRow, find_extensions, read_setup
from offhook_console.pages.proof_page import all_proofs, read_days
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right
from offhook_console.problem_details import ConsoleError

_MOST = 500  # extensions of a list


class ProofQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many days."""

    days: int = 14


class ProofOfCalls(msgspec.Struct, frozen=True):
    """By PBX: the days that were compared, newest first."""

    pbxs: dict[str, list[DayProof]]


async def get_proof(request: Request, person: Person) -> Response:
    found = await all_proofs(parts_of(request), read_days(request))
    return _json(ProofOfCalls({each.name: each.days for each in found}))


class ExtensionQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The filters of extensions, and the length of the list.

    Attributes:
        drift: `yes`: only those that differed from the PBX.
        phone: `gone`: only those without a registered phone.
        q: a part of the number, the label or the owner.
        after: the cursor: those that come after this one.
    """

    drift: str | None = None
    phone: str | None = None
    q: str | None = None
    after: str | None = None
    limit: int = 100


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
        extensions: at most 20; none: all that differed when they were last compared.
        pbx: the only one if not given.
    """

    extensions: list[str] = []
    pbx: str | None = None
    label: str | None = None
    kind: str | None = None


async def list_extensions(request: Request, person: Person) -> Response:
    parts, given = parts_of(request), request.query_params
    query = {name: given.get(name, "") for name in ("drift", "phone", "q")}
    text = given.get("limit", "100")
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    if not 1 <= limit <= _MOST:
        raise ConsoleError(400, f"limit: must be a number from 1 to {_MOST}.")
    found = await find_extensions(parts, query, await parts.setup.drift())
    after = tuple(given.get("after", "").split("/", 1))
    rows = [each for each in found.rows if each.name > after]
    more = "/".join(rows[limit - 1].name) if len(rows) > limit else None
    return _json(ExtensionList([_state(each) for each in rows[:limit]], len(found.rows), more))


async def get_extension_run(request: Request, person: Person) -> Response:
    return _json(ExtensionRun(*await parts_of(request).setup.state()))


async def compare_extensions(request: Request, person: Person) -> Response:
    setup = parts_of(request).setup
    await setup.start_comparison(person.name)
    return _json(ExtensionRun(*await setup.state()), 202)


async def set_up_extensions(request: Request, person: Person) -> Response:
    parts = parts_of(request)
    try:
        wanted = msgspec.json.decode(await request.body(), type=SetupRequest)
    except msgspec.MsgspecError as error:
        raise ConsoleError(400, f"The body is wrong: {error}.") from error
    given: dict[tuple[str, str], ExtensionSettings] | None = None
    if wanted.extensions:
        said = {"pbx": wanted.pbx, "label": wanted.label, "kind": wanted.kind}
        fields = {name: value for name, value in said.items() if value is not None}
        fields["extensions"] = " ".join(wanted.extensions)
        pbx, settings = await read_setup(parts, fields)
        given = {(pbx, number): each for number, each in settings.items()}
    await parts.setup.start_setup(person.name, given)
    return _json(ExtensionRun(*await parts.setup.state()), 202)


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


def _json(value: object, status: int = 200) -> Response:
    return Response(shapes.encode(value), status, media_type="application/json")


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
