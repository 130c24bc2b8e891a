"""`Roster`: the handlers of a server, and which of them want an event."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager

from offhook.event import TROUBLE, CallEvent, EventType
from offhook.extensions import ExtensionsCopy, Name
from offhook.settings import Settings
from workers.serving.runners import Runners
from workers.serving.served import ServedHandler
from workers.serving.streams import Reading, TenantStream
from workers.serving.turns import STEP

_READ_AT_ONCE = 500  # events of a stream
_DELIVERIES_AT_ONCE = 2000  # that a read leads to: each flush writes the positions of all of them
_MOST_KINDS = 10_000  # kinds of events whose handlers are remembered

# Tenant, and what a handler's filter looks at: type, PBX, direction, extensions.
_Kind = tuple[str, EventType, str, str | None, tuple[str, ...]]


class Roster:
    """The handlers of a server.

    Args:
        handlers: those that it serves, or may serve again.
        runners: which know those that have wanted an event: a read does not look at all of them.
        extensions: the settings of extensions, which decide too.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Iterable[ServedHandler],
        runners: Runners,
        extensions: ExtensionsCopy,
    ) -> None:
        self.handlers = list(handlers)
        self._settings = settings
        self._runners = runners
        self._extensions = extensions
        self._by_name = {handler.name: handler for handler in self.handlers}
        self._of: dict[str, list[ServedHandler]] = {}  # by tenant
        pools = {name: policy.pool_of(name) for name, policy in settings.all_handlers.items()}
        # Handlers of other pools that are never served here, and their pools.
        self.of_other_pools = {
            name: pool for name, pool in pools.items() if pool and name not in self._by_name
        }
        self._wanting: OrderedDict[_Kind, list[ServedHandler]] = OrderedDict()

    def get(self, name: str) -> ServedHandler | None:
        """The handler of this name, if it is served here."""
        return self._by_name.get(name)

    def of(self, tenant: str) -> Sequence[ServedHandler]:
        """The handlers that may get a tenant's events."""
        if not (tenant or self._settings.tenants):
            return self.handlers
        found = self._of.get(tenant)
        if found is None:
            mine = (self._by_name.get(name) for name in self._settings.handlers_for(tenant))
            found = self._of[tenant] = [handler for handler in mine if handler is not None]
        return found

    def wanting(self, tenant: str, event: CallEvent) -> list[ServedHandler]:
        """The handlers that want an event. An event like one before costs a look into a table."""
        kind = (tenant, event.type, event.pbx, event.direction, event.extensions)
        found = self._wanting.get(kind)
        if found is None:
            get = self._extensions.get
            found = [each for each in self.of(tenant) if each.plugged.wants(event, get)]
            if event.type in TROUBLE:
                return found  # depends on what it says
            if len(self._wanting) >= _MOST_KINDS:
                self._wanting.popitem(last=False)
            self._wanting[kind] = found
        return found

    def changed(self, names: Set[Name] | None) -> None:
        """Look at the filters anew: the settings of these extensions have changed; None: of any."""
        if names is None:
            self._wanting.clear()
        elif names:
            for kind in [*self._wanting]:
                if any((kind[2], number) in names for number in kind[4]):
                    del self._wanting[kind]

    def pools(self, tenant: str, pools: Sequence[str]) -> list[str]:
        """Those of some pools that serve handlers which may get a tenant's events."""
        if not (tenant or self._settings.tenants):
            return [*pools]
        its = self._settings.handlers_for(tenant)
        theirs = {*its, *(policy.pool_of(name) for name, policy in its.items())}
        return [pool for pool in pools if pool in theirs]

    def starts(self, tenant: str) -> Mapping[str, str]:
        """Where each configured handler begins on a tenant's stream if it has no position."""
        return {name: each.start for name, each in self._settings.handlers_for(tenant).items()}

    def _reading_along(
        self, tenant: str, readings: Mapping[ServedHandler, Reading]
    ) -> list[ServedHandler]:
        """Those that have wanted an event, and have not fallen behind on a tenant's stream."""
        wanted = self._wanted(tenant)
        return [each for each in wanted if each not in readings or readings[each].own is None]

    def _wanted(self, tenant: str) -> Collection[ServedHandler]:
        """The handlers that have wanted an event, may get a tenant's, and are not paused."""
        wanted: Collection[ServedHandler] = self._runners.wanted
        if tenant or self._settings.tenants:
            wanted = [handler for handler in self.of(tenant) if handler in wanted]
        return [handler for handler in wanted if not handler.paused]

    def may_read(self, tenant: str, readings: Mapping[ServedHandler, Reading]) -> bool:
        """Return whether to read on: not while all handlers that read along have enough events.

        Those that have wanted none so far do not count. Half of what they may have is enough, so
        that events are read many at a time.
        """
        along = self._reading_along(tenant, readings)
        return not along or any(handler.may_have_more for handler in along)

    @contextmanager
    def reserved(self, streams: Sequence[TenantStream]) -> Iterator[int]:
        """Reserve room for a read of these streams. Yield how many events of each to read."""
        runners = self._runners
        wanting = [self._reading_along(each.tenant, each.readings) for each in streams]
        of_each = zip(streams, wanting, strict=True)
        each_leads_to = max(1, *(len(its) or len(self.of(each.tenant)) for each, its in of_each))
        many = len(streams) > 3 or bool(self._settings.tenants)
        most = min(_READ_AT_ONCE, STEP) if many else _READ_AT_ONCE
        most = min(most, min(_DELIVERIES_AT_ONCE, runners.free) // each_leads_to)
        room = max((each.most - each.outstanding for its in wanting for each in its), default=most)
        count = max(1, min(most, room - runners.reserved))
        runners.reserved += count
        runners.expected += count * each_leads_to
        try:
            yield count
        finally:
            runners.reserved -= count
            runners.expected -= count * each_leads_to
            runners.unblock()

    def pool_of(self, name: str) -> str | None:
        """The pool that serves a handler now; None if it is not configured."""
        policy = self._settings.all_handlers.get(name)
        if policy is None:
            return None
        handler = self._by_name.get(name)
        return name if handler is not None and handler.apart else policy.pool_of(name)
