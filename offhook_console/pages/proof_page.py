"""Proof: the calls in the PBXs' own records beside those kept here, day by day."""

import asyncio

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from offhook import queues
from offhook.operations.audit import Change, note_change
from offhook_console.parts import parts_of
from offhook_console.people import Person
from offhook_console.proof_query import all_proofs, read_days

_RECONCILE = "workers.reconcile.job.reconcile"


async def proof(request: Request, person: Person) -> Response:
    """Show the last days of each PBX."""
    parts = parts_of(request)
    days = read_days(request)
    return parts.pages.page(
        request, person, "proof.html", days=days, pbxs=await all_proofs(parts, days)
    )


async def compare(request: Request, person: Person) -> Response:
    """Let the workers compare now."""
    parts = parts_of(request)
    await asyncio.to_thread(queues.call_scheduled, parts.rq, _RECONCILE)
    await note_change(parts.inbox.redis, person.name, Change.RECORDS_COMPARED)
    return RedirectResponse("/proof", 303)
