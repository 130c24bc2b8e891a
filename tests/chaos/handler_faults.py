"""Faults of handlers: one blocks its process, one ends it. Both run apart, and come back."""

import json
import time
from collections.abc import Callable
from random import Random

from offhook.inbox import keys
from tests.chaos.scene import NothingToStrike, Scene
from workers.serving.guard import APART_FOR

_SOON = 30.0  # seconds; another fault may have been faster


def block_handler(scene: Scene, dice: Random) -> None:
    _misbehave(scene, "block", "blocking", dice)


def crash_handler(scene: Scene, dice: Random) -> None:
    _misbehave(scene, "crash", "crashing", dice)


def _misbehave(scene: Scene, how: str, handler: str, dice: Random) -> None:
    asked = scene.offhook.output / f"{how}-{handler}"
    with scene.offhook.client() as client:
        began = time.time()
        asked.touch()

        def since() -> float:
            stored = client.hget(keys.APART, handler)
            return float(json.loads(stored)["since"]) if stored else 0.0

        try:
            _wait(lambda: not asked.exists() and since() >= began)
        finally:
            asked.unlink(missing_ok=True)
        time.sleep(dice.uniform(0, 3))  # it runs apart
        # As if it had behaved for so long.
        aged = {"reason": how, "since": began - APART_FOR}
        client.hset(keys.APART, handler, json.dumps(aged))
        _wait(lambda: not since())


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SOON
    while not condition():
        if time.monotonic() > deadline:
            raise NothingToStrike
        time.sleep(0.05)
