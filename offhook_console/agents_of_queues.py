"""`AgentsOfQueues`: who serves each queue, as the PBX says; asked only while a page shows it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from offhook.errors import ConfigError
from offhook.extensions import ExtensionSettings, Name
from offhook.provisioning.api import open_api, sentence
from offhook.settings import Settings
from offhook.tasks import end
from unifiedapi.errors import UnifiedApiError
from unifiedapi.resources import QueueAgent

log = logging.getLogger("offhook.console")

_EVERY = 30.0  # seconds between two requests for a queue, from all browsers together
_WITHIN = 20.0  # seconds for all queues of a tenant
_MOST = 50  # queues of a tenant, and agents of a queue

Queues = Mapping[Name, ExtensionSettings]


@dataclass
class _Known:
    agents: Mapping[Name, Sequence[QueueAgent]] = field(default_factory=dict)
    asked: float = -_EVERY
    asking: "asyncio.Task[None] | None" = None


class AgentsOfQueues:
    """Asks the PBXs for the agents of queues.

    Args:
        tell: called with a tenant when its agents have changed.
    """

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._known: dict[str, _Known] = {}

    def of(self, tenant: str, queues: Queues) -> Mapping[Name, Sequence[QueueAgent]]:
        """The agents as last known. Asks again, without waiting for it, if that is a while ago."""
        known = self._known.setdefault(tenant, _Known())
        asked_lately = time.monotonic() - known.asked < _EVERY
        if not asked_lately and (known.asking is None or known.asking.done()):
            known.asked = time.monotonic()
            known.asking = asyncio.create_task(self._ask(tenant, known, list(queues.items())))
        return known.agents

    async def close(self) -> None:
        """Ask no more."""
        await end(*(each.asking for each in self._known.values() if each.asking))

    async def _ask(
        self, tenant: str, known: _Known, queues: Iterable[tuple[Name, ExtensionSettings]]
    ) -> None:
        found: dict[Name, Sequence[QueueAgent]] = {}
        for pbx in self._accesses(tenant):
            mine = [each for each in queues if each[0][0] == pbx][:_MOST]
            if not mine:
                continue
            try:
                async with asyncio.timeout(_WITHIN):
                    found |= await self._ask_pbx(tenant, pbx, mine)
            except TimeoutError:
                log.warning("PBX %s: the agents of its queues did not come in time", pbx)
            except (UnifiedApiError, ConfigError) as error:
                log.warning("PBX %s: the agents of its queues: %s", pbx, sentence(error))
        if found != known.agents:
            known.agents = found
            self._tell(tenant)

    async def _ask_pbx(
        self, tenant: str, pbx: str, queues: Iterable[tuple[Name, ExtensionSettings]]
    ) -> dict[Name, Sequence[QueueAgent]]:
        settings = self._settings.of(tenant)
        found: dict[Name, Sequence[QueueAgent]] = {}
        async with open_api(settings, pbx) as api:
            for name, extension in queues:
                user = extension.user or settings.pbx[pbx].user
                listing = api.queue_agents.list(name[1], user=user, count=_MOST)
                found[name] = [each async for each in listing][:_MOST]
        return found

    def _accesses(self, tenant: str) -> list[str]:
        """The PBXs whose API shows this tenant's extensions alone: by an access of its own."""
        settings = self._settings.tenants[tenant] if tenant else self._settings
        return [name for name, each in settings.pbx.items() if each.host is not None]
