"""A healthy installation for `offhook doctor`, which a test can break."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from rq import Worker
from rq.serializers import JSONSerializer
from starlette.responses import JSONResponse

from offhook import queues
from offhook.connection import connect
from offhook.inbox import Inbox, keys
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook, append
from tests.unifiedapi.serving import serve

CRM = '[handlers.crm]\nuse = "console"\n'
LOCAL = (
    "Receiver: warn public_url leads to this machine: that is for trials; set it to the https:// "
    "address at which the PBX reaches the receiver"
)


class Scene:
    """A healthy installation, for a test to break."""

    def __init__(
        self, folder: Path, rq: redis.Redis, configure: Configure, settings: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.redis = rq
        self._configure = configure
        self._settings = settings
        self.again(CRM).chmod(0o600)
        for name in ("offhook.serve", "offhook.scheduled"):
            worker = Worker(
                [queues.queue(name, rq)], name=name, connection=rq, serializer=JSONSerializer
            )
            worker.register_birth()  # type: ignore[no-untyped-call]
        rq.set(keys.SCHEDULER, "here-1")
        rq.set(keys.serving(0), "here/1/x")
        (folder / "journal").mkdir()

    def again(self, tables: str, **settings: object) -> Path:
        """Write the configuration again, with other tables and settings."""
        return self._configure(tables, **(self._settings | settings))

    def append(self, count: int) -> None:
        """Append events that the handler has not had."""

        async def run() -> None:
            async with connect(load_settings().redis_url) as client:
                inbox = Inbox(client, 1)
                await inbox.register({"crm": "earliest"})
                await append(inbox, *(event(f"call-{n}") for n in range(count)))

        asyncio.run(run())


@contextmanager
def healthy(folder: Path, redis_url: str, configure: Configure) -> Iterator[Scene]:
    """Prepare the scene: a receiver answers the test callback, and workers seem to run."""
    with (
        redis.Redis.from_url(redis_url) as rq,
        serve(JSONResponse({"status": "self-test"})) as receiver,
    ):
        rq.config_set("maxmemory", "1gb")
        rq.config_set("appendfsync", "always")
        try:
            yield Scene(folder, rq, configure, {"public_url": receiver, "journal_size": 1_000_000})
        finally:
            rq.replicaof("NO", "ONE")
            rq.config_set("maxmemory", 0)
            rq.config_set("appendfsync", "everysec")
            rq.config_set("maxmemory-policy", "noeviction")
            rq.config_set("appendonly", "yes")


def read(offhook: Offhook, *options: str) -> dict[str, Any]:
    result = offhook("doctor", "--json", *options)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["healthy"] else 1)
    assert found["healthy"] == (not found["counts"]["fail"])
    return found


def lines(offhook: Offhook, *options: str) -> list[str]:
    """Return every finding, as `PART: VERDICT SENTENCE`."""
    return [
        f"{part['part'].partition(' at ')[0]}: {each['verdict']} {each['sentence']}"
        for part in read(offhook, *options)["parts"]
        for each in part["findings"]
    ]


def complaints(offhook: Offhook, *options: str) -> list[str]:
    return [each for each in lines(offhook, *options) if ": pass " not in each]
