"""Callbacks through a real nginx, with pauses around the idle timeouts of both sides."""

import asyncio
import re
from pathlib import Path

from offhook.settings import Settings
from tests.receiver.behind_nginx import CONF, nginx, not_accepted, pauses
from tests.receiver.running import running_receiver

BURSTS = 30


def test_receiver_keeps_idle_connections_longer_than_nginx() -> None:
    (seconds,) = re.findall(r"^upstream offhook \{.*?keepalive_timeout (\d+)s;", CONF, re.M | re.S)
    assert Settings.model_fields["idle_timeout"].default >= 2 * int(seconds)


def test_no_callback_is_lost_when_nginx_closes_idle_connections_first(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        running_receiver(redis_url, tmp_path, idle_timeout=5) as receiver,
        nginx(tmp_path, [receiver.port], 0.1, retry=False) as front,
    ):
        assert asyncio.run(not_accepted(front.port, pauses(BURSTS, 0.1, 0.2))) == []


def test_no_callback_is_lost_when_the_receiver_closes_idle_connections_first(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        running_receiver(redis_url, tmp_path, idle_timeout=0.1) as receiver,
        nginx(tmp_path, [receiver.port], 0.2) as front,
    ):
        assert asyncio.run(not_accepted(front.port, pauses(BURSTS, 0.1, 0.2))) == []


def test_no_callback_is_lost_when_one_of_two_receivers_restarts(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        running_receiver(redis_url, tmp_path) as first,
        running_receiver(redis_url, tmp_path) as second,
        nginx(tmp_path, [first.port, second.port], 60) as front,
    ):

        async def stop_while_sending() -> list[str]:
            sending = asyncio.create_task(not_accepted(front.port, [0.0] * 2 * BURSTS))
            await asyncio.sleep(0.3)
            first.process.terminate()
            return await sending

        assert asyncio.run(stop_while_sending()) == []
        assert first.process.wait(60) in (0, -15)
