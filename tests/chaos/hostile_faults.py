"""Faults that clients of the receiver cause, and a receiver without descriptors."""

import asyncio
import resource
import time
from pathlib import Path
from random import Random

from tests.chaos.load import flood
from tests.chaos.scene import Scene
from tests.installation import wait_until
from tests.receiver import hostile

# Those that never complete a callback with a valid token.
_ATTACKS = (
    hostile.slow_heads,
    hostile.slow_bodies,
    hostile.huge_heads,
    hostile.endless_trailers,
    hostile.rubbish,
)

FLOOD = 700  # callbacks; the rate limit of a storm admits 450 at once


def exhaust_descriptors(scene: Scene, dice: Random) -> None:
    """Leave the receiver no descriptor that is free."""
    before = resource.prlimit(scene.offhook.receiver.pid, resource.RLIMIT_NOFILE)

    def refuses_connections() -> bool:
        pid = scene.offhook.receiver.pid  # another fault may have killed the one before
        taken = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (taken, before[1]))
        return not scene.offhook.is_ready()

    try:
        wait_until(refuses_connections, "the receiver refuses connections")
        time.sleep(dice.uniform(1, 5))
    finally:
        resource.prlimit(scene.offhook.receiver.pid, resource.RLIMIT_NOFILE, before)


def open_idle_connections(scene: Scene, dice: Random) -> None:
    asyncio.run(hostile.idle(scene.offhook.port))


def flood_one_url(scene: Scene, dice: Random) -> None:
    """Send more through a leaked URL than its rate limit allows."""
    flood(scene.offhook.port, scene.callers, f"{dice.random()}"[2:], FLOOD)


def flood_without_token(scene: Scene, dice: Random) -> None:
    asyncio.run(hostile.without_a_token(scene.offhook.port, 600))


def attack_receiver(scene: Scene, dice: Random) -> None:
    asyncio.run(dice.choice(_ATTACKS)(scene.offhook.port))
