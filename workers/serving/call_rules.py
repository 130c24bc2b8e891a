"""`CallRules`: when calls end by the settings of a server, and which events about them are due."""

from datetime import datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from offhook.call import Kind
from offhook.calls import CallState, Closing, goes_on, settles_after, tell
from offhook.event import CallEvent, tenant_of
from offhook.inbox.call_store import Kept

if TYPE_CHECKING:
    from workers.serving.partition_server import Server


class CallRules:
    """The rules of `offhook.calls` with the settings of one server."""

    def __init__(self, server: "Server") -> None:
        self._settings = server.settings
        self._extensions = server.extensions

    def settles_after(self, state: CallState) -> float | None:
        """The seconds until a call counts as ended; None while it goes on."""

        def kind_of(extension: str) -> Kind | None:
            return self._extensions.get(state.pbx, extension).kind

        settings = self._settings
        return settles_after(state, settings.settle, settings.settle_unanswered, kind_of)

    def goes_on(self, state: CallState, now: datetime) -> bool:
        """Return whether a silent call may still go on."""
        pbx = self._settings.pbx.get(state.pbx)
        return goes_on(state, now, records=pbx is not None and pbx.host is not None)

    def tell(
        self, kept: Kept, now: datetime, closing: Closing | None
    ) -> tuple[Kept, list[CallEvent]]:
        """The call as it is now, and the events about it that are due."""
        tenant = tenant_of(kept.name)
        region = self._settings.of(tenant).region
        state, events = tell(kept.state, region, now, closing, tenant)
        return replace(kept, state=state), events
