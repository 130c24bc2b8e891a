"""`maxmemory` is reached: the journal takes new events, and the workers can empty the inbox."""

import json
import random
import signal
import threading
import time
import urllib.request
from pathlib import Path

from tests.installation import Installation, Outcome, audit, wait_until

HANDLERS = """
[handlers.first]
use = "tests.recorders:record"
[handlers.second]
use = "tests.recorders:record"
"""
NAMES = ["first", "second"]


def test_full_server_loses_nothing_and_is_emptied(tmp_path: Path) -> None:
    config = {"maxmemory": "32mb", "maxmemory-policy": "noeviction"}
    # Without marks, which expire at some time, so that the size of an event is known.
    with Installation.running(tmp_path, HANDLERS, config, duplicate_window=0) as offhook:
        with offhook.client() as client:
            while client.info("memory")["used_memory"] < 0.75 * 32 * 1024 * 1024:
                client.rpush("ballast", "x" * 100_000)  # full after some thousand events
        warm = offhook.load(10, name="warm")
        offhook.wait_for_all(warm, NAMES)
        offhook.supervisor.send_signal(signal.SIGTERM)  # no worker empties it now
        offhook.supervisor.wait(30)
        outcome = offhook.load(22_000, extensions=30)
        assert (outcome.count, outcome.refused) == (22_000, 0)
        assert _in_journal(offhook) > 200_000
        offhook.supervisor = offhook.start_supervisor()
        outcome.accepted |= warm.accepted
        offhook.wait_for_all(outcome, NAMES, seconds=120)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)
        wait_until(lambda: _in_journal(offhook) == 0, "the journal is empty")
        assert "before keep_days" in offhook.log.read_text()


def test_briefly_full_server_stops_no_worker(tmp_path: Path) -> None:
    """Fill the server at random moments: during appends, acknowledgements, RQ's bookkeeping."""
    seed = int(time.time())
    print("seed", seed)
    chance = random.Random(seed)
    config = {"maxmemory": "1gb", "maxmemory-policy": "noeviction"}
    with Installation.running(tmp_path, HANDLERS, config) as offhook:
        over, outcome, turn = threading.Event(), Outcome(), 0

        def fill_now_and_then() -> None:
            try:
                with offhook.client() as client:
                    # Of a server that is full for longer, an extension may only have its share.
                    client.set("ballast", "x" * 20_000_000)
                    for _ in range(40):
                        time.sleep(chance.uniform(0, 0.5))
                        used = client.info("memory")["used_memory"]
                        client.config_set("maxmemory", used * 9 // 10)
                        time.sleep(chance.choice([0.001, 0.003]))
                        client.config_set("maxmemory", "1gb")
            finally:
                over.set()

        filling = threading.Thread(target=fill_now_and_then)
        filling.start()
        while not over.wait(0.1):
            offhook.load(200, extensions=30, connections=16, name=f"turn-{turn}", outcome=outcome)
            turn += 1
        filling.join()
        assert (outcome.count, outcome.refused) == (200 * turn, 0)
        offhook.wait_for_all(outcome, NAMES, seconds=120)
        for name in NAMES:
            audit(outcome, offhook.delivered(name), repeats=True)


def _in_journal(offhook: Installation) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{offhook.port}/health/ready") as answer:
        size: int = json.load(answer)["journal"]
        return size
