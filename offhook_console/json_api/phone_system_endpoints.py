"""The endpoints of the API that are about the PBX: proof."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from offhook.operations.proof import DayProof
from offhook_console.json_api import shapes
from offhook_console.json_api.openapi_document import ApiEndpoint
from offhook_console.pages.proof_page import all_proofs, read_days
from offhook_console.parts import parts_of
from offhook_console.people import Person, Right


class ProofQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many days."""

    days: int = 14


class ProofOfCalls(msgspec.Struct, frozen=True):
    """By PBX: the days that were compared, newest first."""

    pbxs: dict[str, list[DayProof]]


async def get_proof(request: Request, person: Person) -> Response:
    found = await all_proofs(parts_of(request), read_days(request))
    return _json(ProofOfCalls({each.name: each.days for each in found}))


def _json(value: object, status: int = 200) -> Response:
    return Response(shapes.encode(value), status, media_type="application/json")


PHONE_SYSTEM_ENDPOINTS = (
    ApiEndpoint("GET", "/api/v1/proof", get_proof, Right.DELIVERIES,
             "Compare the PBX's own records with the calls here, day by day.", ProofOfCalls,
             query=ProofQuery),
)  # fmt: skip
