"""Tenants in a receiver: whose an event is, in the inbox, the journal and the quarantine."""

import asyncio
from pathlib import Path
from typing import Any

from redis import Redis

from offhook.connection import opened
from offhook.errors import InboxUnavailable
from offhook.event import CallEvent, from_stored
from offhook.inbox import keys, quarantine
from offhook.settings import load_settings
from receiver.group_commit import MAX_BATCH, GroupCommit
from receiver.quarantine_retry import retry
from tests.conftest import Configure
from tests.events import event
from tests.installation import wait_until
from tests.receiver.running import running_receiver, url
from tests.receiver.storing import Valkey, append, storing, until

TENANTS = """
[tenants.acme]
extensions = ["main/0003**"]
[tenants.beta]
extensions = ["main/0004**"]
"""


def events(client: Redis, tenant: str = "") -> list[CallEvent]:
    found: Any = client.xrange(keys.inbox(0, tenant))
    return [from_stored(fields[b"e"]) for _, fields in found]


async def test_events_of_tenants_are_in_streams_of_their_own(redis_url: str) -> None:
    async with storing(redis_url) as (store, commit):
        await until(lambda: store.takes_directly)
        sent = [event(n=n, tenant=t) for n, t in enumerate(("", "acme", "beta", "acme"))]
        answers = await asyncio.gather(*(append(commit, str(each.tenant), each) for each in sent))
        # Equal marks: those of two tenants are no repeats of each other.
        assert answers == [True, True, True, False]
    with Redis.from_url(redis_url) as client:
        for tenant in ("", "acme", "beta"):
            assert [each.tenant for each in events(client, tenant)] == [tenant]
            assert client.get(keys.last(0, tenant)) == b"1"
        assert client.smembers(keys.unfinished(0)) == {b"", b"acme", b"beta"}


async def test_the_same_mark_of_two_tenants_is_no_repeat(redis_url: str) -> None:
    async with storing(redis_url) as (store, commit):
        await until(lambda: store.takes_directly)
        answers = [await append(commit, "same", event(tenant=t)) for t in ("", "acme", "beta", "")]
    assert answers == [True, True, True, False]


async def test_the_journal_keeps_the_tenant(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    try:
        async with storing(server.url, journal=tmp_path / "journal") as (store, commit):
            await until(lambda: store.takes_directly)
            with server.full():
                sent = [event(n=n, tenant=t) for n, t in enumerate(("acme", "", "beta", "acme"))]
                for each in sent:
                    assert await append(commit, each.id, each)
                assert store.journal_size
            await until(lambda: store.takes_directly)
        with server.client() as client:
            for tenant, ns in (("", "1"), ("acme", "03"), ("beta", "2")):
                assert [each.parameters["n"] for each in events(client, tenant)] == [*ns]
                assert {each.tenant for each in events(client, tenant)} == {tenant}
    finally:
        server.stop()


async def test_a_flood_of_one_tenant_does_not_fill_the_batches(redis_url: str) -> None:
    batches: list[list[str]] = []

    async def put(partition: int, events: Any, tenants: Any) -> set[int]:
        batches.append([*tenants])
        return set()

    commit = GroupCommit(put, 1, max_waiting=50_000)
    outcomes: list[object] = []
    for n in range(5_100):
        commit.submit(str(n), event(n=n, tenant="flood"), outcomes.append)
    for n in range(100):
        commit.submit(str(n), event(n=n, tenant=f"t{n}"), outcomes.append)
    await commit.close()
    first = batches[0]
    assert len(first) == MAX_BATCH
    assert {f"t{n}" for n in range(100)} <= {*first}
    assert sum(isinstance(each, InboxUnavailable) for each in outcomes) == 100  # the flood's
    assert sum(map(len, batches)) == 5_100


def test_a_receiver_finds_the_tenant_of_an_extension(
    configure: Configure, tmp_path: Path, redis_url: str
) -> None:
    form = b"CallID=c1&CallFlow=IN&CallStatus=CALLING"
    config = configure(TENANTS)
    with (
        running_receiver(redis_url, tmp_path, config=config) as receiver,
        Redis.from_url(redis_url) as client,
    ):
        for extension in ("0003*210", "0004*210", "0005*210"):
            assert receiver.post(url(extension=extension), form).status == 200
            assert receiver.post(url(extension=extension), b"no CallID").status == 400
        for tenant, extension in (("acme", "0003*210"), ("beta", "0004*210"), ("", "0005*210")):
            assert [each.extension for each in events(client, tenant)] == [extension]
            [(_, refused)] = client.xrange(keys.quarantine(tenant))
            assert refused[b"extension"] == extension.encode()
        # The colon would end a tenant in the name of a call.
        assert receiver.post(url(pbx="acme:main"), form).status == 404


def test_a_flood_of_one_tenant_is_refused_and_counted(
    configure: Configure, tmp_path: Path, redis_url: str
) -> None:
    config = configure(TENANTS + "[tenants.acme2]\nextensions = []\n")
    config.write_text(
        config.read_text().replace("[tenants.beta]", "limits.rate = 1\n[tenants.beta]")
    )
    form = b"CallID=c%d&CallFlow=IN&CallStatus=CALLING"
    with (
        running_receiver(redis_url, tmp_path, config=config) as receiver,
        Redis.from_url(redis_url) as client,
    ):
        numbers = range(60)
        answers = [
            receiver.post(url(extension=f"0003*{210 + n % 20}"), form % n).status for n in numbers
        ]
        assert answers.count(429) > 10
        assert answers[:30] == [200] * 30  # a burst of 30 seconds' worth
        others = [receiver.post(url(extension="0004*210"), form % n).status for n in range(20)]
        assert others == [200] * 20
        wait_until(lambda: client.exists(keys.refused("acme")), "the refusals are stored")
        assert client.hgetall(keys.refused("acme")).keys() == {b"tenant_rate"}
        assert not client.exists(keys.refused(), keys.refused("beta"))
        assert len(events(client, "acme")) == answers.count(200)


async def test_a_retry_stays_in_the_tenant(configure: Configure, redis_url: str) -> None:
    configure(TENANTS)
    settings = load_settings()
    kept: dict[str, str | bytes] = {
        "code": "too_many_parameters",
        "message": "m",
        "pbx": "main",
        "extension": "0003*210",
        "event_type": "dial-in",
        "method": "POST",
        "content_type": "",
        "query": b"",
        "body": b"CallID=c1&CallFlow=IN",
        "received": "2026-05-01T12:00:00+00:00",
    }
    async with opened(settings) as (inbox, _):
        for tenant in ("acme", "beta"):  # as if the extension had been the other one's
            await inbox.redis.xadd(keys.quarantine(tenant), kept, id="1778000000000-0")  # type: ignore[arg-type]
        await retry(settings, inbox, await quarantine.kept(inbox.redis, "acme"), "acme")
        assert await quarantine.length(inbox.redis, "acme") == 0
        assert await quarantine.length(inbox.redis, "beta") == 1
        await retry(settings, inbox, await quarantine.kept(inbox.redis, "beta"), "beta")
    with Redis.from_url(redis_url) as client:
        [one], [other] = events(client, "acme"), events(client, "beta")
        assert one.id != other.id
        assert (one.tenant, other.tenant) == ("acme", "beta")
