"""A sandbox PBX with call records, and a server with calls."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

import redis as blocking

from offhook import CallEvent, EventType, ExtensionSettings
from offhook.call import Call, Kind
from offhook.calls import summarize
from offhook.connection import connect
from offhook.dialects.voipnow import read_event
from offhook.event import from_stored
from offhook.extensions import Extensions
from offhook.inbox import Inbox
from offhook.inbox.call_store import FOLDED, Calls
from offhook.provisioning.api import open_api
from offhook.settings import load_settings
from tests.events import batch_of
from tests.offhook.sandbox import Sandbox
from tests.workers.folded import fold
from unifiedapi.sandbox.call_records import record_of
from unifiedapi.sandbox.pbx import Drop
from unifiedapi.sandbox.scenarios import Scenario, make_call
from unifiedapi.sandbox.scenarios import ScriptedCall as PlacedCall
from workers.reconcile.reconciliation import Reconciled, Reconciliation

STREAM = "offhook:{0}:inbox"
PHONES = ("0003*210", "0003*211", "0003*212", "0003*213")
QUEUE = "0003*400"
HOUR = timedelta(hours=1)
R = TypeVar("R")


class Bench:
    """A sandbox PBX with call records, and a server with calls."""

    def __init__(self, pbx: Sandbox, url: str) -> None:
        self.pbx = pbx
        self.url = url
        self.redis = blocking.Redis.from_url(url)
        self.settings = load_settings().model_copy(update={"settle": 0.1, "settle_unanswered": 0.1})
        self.set_up(*PHONES, QUEUE)

    def set_up(self, *numbers: str) -> None:
        kinds = {number: Kind.QUEUE if number == QUEUE else Kind.PHONE for number in numbers}
        put = {("main", number): ExtensionSettings(kind=kind) for number, kind in kinds.items()}
        self.run(lambda inbox: Extensions(inbox.redis).change(put))

    def place(
        self,
        scenario: str,
        drop: str = "none",
        *,
        seed: int = 1,
        ago: timedelta = HOUR,
        record: bool = True,
    ) -> PlacedCall:
        """Add a past call: its record, and the callbacks that are not lost."""
        call = make_call(Scenario(scenario), Random(seed), PHONES)
        began = datetime.now(UTC) - ago
        if record:
            over = began + timedelta(seconds=call.callbacks[-1].at)
            self.pbx.store.add_record(record_of(call, began, over))
        told = []
        for callback in call.callbacks:
            if not Drop(drop).loses(callback):
                event = read_event(
                    pbx="main",
                    extension=callback.extension,
                    type=EventType(callback.type.label),
                    parameters=dict(callback.parameters),
                    received=began + timedelta(seconds=callback.at),
                )
                told.append(event)
        if told:
            self.run(lambda inbox: inbox.append(batch_of(*told), 0))
        return call

    def keep(self) -> None:
        """Fold the events in the inbox into calls."""
        fold(self.settings)

    def reconcile(
        self,
        since: timedelta | None = timedelta(days=1),
        *,
        dry_run: bool = False,
        young: timedelta = timedelta(),
        checks: int = 30,
    ) -> Reconciled | None:
        """Compare the records since a time, or those that the job's next run would."""

        async def go(inbox: Inbox) -> Reconciled | None:
            async with open_api(self.settings, "main") as api:
                work = Reconciliation(self.settings, "main", api, inbox, young, checks)
                if since is None:
                    return await work.next()
                return await work.since(datetime.now(UTC) - since, dry_run=dry_run)

        return self.run(go)

    def events(self) -> list[CallEvent]:
        found: Any = self.redis.xrange(STREAM)
        return [from_stored(fields[b"e"]) for _, fields in found]

    def told(self, call: str) -> list[str]:
        """Return the types of the events announced about a call."""
        told = (e for e in self.events() if e.call_id == call and e.type not in FOLDED)
        return [event.type.value for event in told]

    def calls(self) -> dict[str, Call]:
        async def go(inbox: Inbox) -> dict[str, Call]:
            since = datetime.now(UTC) - timedelta(days=7)
            kept = [each async for each in Calls(inbox).since(since)]
            return {each.state.id: summarize(each.state, "GB") for each in kept}

        return self.run(go)

    def run(self, go: Callable[[Inbox], Awaitable[R]]) -> R:
        async def run() -> R:
            client = connect(self.url)
            try:
                return await go(Inbox(client, 1))
            finally:
                await client.aclose()

        return asyncio.run(run())


def recovered_id(call: PlacedCall) -> str:
    return f"record-{call.callbacks[0].parameters['CallAPIID']}"


def configuration(pbx: Sandbox) -> str:
    """Return the configuration of the PBX and of a handler."""
    return (
        f"[pbx.main]\nhost = '{pbx.url}'\ntoken = 'sandbox-token'\ninsecure = true\n"
        "zone = 'UTC'\n[handlers.screen]\nuse = 'console'\n"
    )
