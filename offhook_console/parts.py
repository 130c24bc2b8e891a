"""What the endpoints of the console share."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from starlette.requests import HTTPConnection, Request

from offhook.call import Call
from offhook.calls import summarize
from offhook.event import CallEvent, call_name
from offhook.inbox import Inbox
from offhook.inbox.call_store import Calls, Kept
from offhook.inbox.record import Record
from offhook.inbox.record_part import RecordedAttempt
from offhook.operations.bulk import BulkOperations
from offhook.settings import Settings, tenant_of_plugin
from offhook_console.agents_of_queues import AgentsOfQueues
from offhook_console.attention import Attention
from offhook_console.dialling import Dialling
from offhook_console.extension_setup import ExtensionSetup
from offhook_console.feeds import Feeds
from offhook_console.handler_course import HandlerCourses
from offhook_console.languages import gettext
from offhook_console.last_seen import LastSeen
from offhook_console.listeners import OwnPhones
from offhook_console.live_feed import LiveFeed
from offhook_console.passwords import PasswordCheck
from offhook_console.people import Person
from offhook_console.problem_details import ConsoleError
from offhook_console.rendering import Pages
from offhook_console.session_streams import SessionStreams
from offhook_console.sessions import Sessions
from offhook_console.sign_in_limit import SignInLimit
from offhook_console.wall_watch import WallWatch

# Reads refused callbacks again: of the settings, the inbox, and the callbacks by id. The receiver
# knows how, and the console may not import it.
Deliver = Callable[[Settings, Inbox, Iterable[tuple[str, Mapping[str, bytes]]]], Awaitable[Any]]


@dataclass
class ConsoleParts:
    """What the endpoints of the console share: `parts_of(request)`."""

    settings: Settings
    inbox: Inbox
    rq: Redis
    pages: Pages
    feeds: Feeds
    sessions: Sessions
    passwords: PasswordCheck
    limit: SignInLimit
    deliver: Deliver
    attention: Attention
    dialling: Dialling
    setup: ExtensionSetup
    seen: LastSeen
    walls: WallWatch
    agents: AgentsOfQueues
    streams: SessionStreams = field(default_factory=SessionStreams)
    courses: HandlerCourses = field(default_factory=HandlerCourses)
    # A board of the past reads the calls of a day: one at a time, however many people look back.
    looking_back: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def feed(self) -> LiveFeed:
        """The feed of the operator's events and of all deliveries."""
        return self.feeds[""]

    def feed_of(self, person: Person) -> LiveFeed:
        """The feed of the events that a person may see."""
        return self.feeds[person.tenant]

    def phones_of(self, person: Person) -> OwnPhones:
        """The phones of a person, for screen pops."""
        user, masked = self.settings.console.users.get(person.name), person.view.masked
        url = (user.pop_url if user else None) or self.settings.console.pop_url
        # A URL with a masked number would find the wrong contact.
        return OwnPhones(person.extensions, masked, None if masked else url)

    def region_of(self, person: Person) -> str | None:
        """The country whose numbers are dialled without a country code."""
        return self.settings.of(person.tenant).region

    @property
    def calls(self) -> Calls:
        """The store of calls."""
        return Calls(self.inbox)

    async def call(self, request: Request, person: Person) -> tuple[Kept, Call]:
        """The call that the path names, as `pbx` and `id`.

        Raises:
            ConsoleError: there is none that this person may see.
        """
        pbx, call_id = request.path_params["pbx"], request.path_params["id"]
        # The name of a tenant's call begins with the tenant: no path may bring one in.
        name = call_name(pbx, call_id, person.tenant)
        kept = None if ":" in pbx else await self.calls.get(name)
        call = summarize(kept.state, self.region_of(person)) if kept else None
        if kept is None or call is None or not person.view.shows(call):
            raise ConsoleError(
                404, gettext("There is no such call. Calls are kept as long as events.")
            )
        return kept, call

    async def history(
        self, kept: Kept, person: Person
    ) -> tuple[list[CallEvent] | None, list[RecordedAttempt] | None]:
        """A call's events, and the attempts to deliver them to the handlers that are the person's.

        Both contain numbers: None for a person who may not see them.
        """
        if person.view.masked:
            return None, None
        events = await self.calls.events(kept)
        attempts = await Record(self.inbox).of_call(kept.name, events)
        mine = [each for each in attempts if tenant_of_plugin(each.handler) == person.tenant]
        return events, mine

    @property
    def operations(self) -> BulkOperations:
        """The bulk operations."""
        return BulkOperations(self.inbox, self.rq)


def parts_of(request: HTTPConnection) -> ConsoleParts:
    """The parts of the console that answers a request."""
    parts: ConsoleParts = request.app.state.parts
    return parts
