"""Callbacks through a real Caddy with deploy/Caddyfile: over TLS, and while receivers fail."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.drills.caddy import caddy, not_accepted_while
from tests.installation import wait_until
from tests.receiver.behind_nginx import not_accepted, pauses
from tests.receiver.over_tls import asking, files_of, issue_certificate
from tests.receiver.running import running_receiver, url


def test_callbacks_come_over_tls_and_no_log_has_their_url(redis_url: str, tmp_path: Path) -> None:
    certificate, trust = issue_certificate(tmp_path)
    folder = tmp_path / "proxy"
    folder.mkdir()
    with (
        running_receiver(redis_url, tmp_path) as first,
        running_receiver(redis_url, tmp_path) as second,
        caddy(folder, [first.port, second.port], certificate=certificate) as front,
        asking(front.port, trust, 60) as ask,
    ):
        wait_until(lambda: ask("/health/live") == 200, "the proxy reaches the receiver")
        assert ask(url(), "1") == 200
        assert ask(f"{url()}?CallID=2") == 200
        assert ask("/health/ready") == 200  # from this machine
        assert [ask(path) for path in ("/metrics", "/health", "/")] == [404] * 3
        assert ask(url(), "x" * 70_000) == 413
        first.stop()
        assert [ask(url(), str(n)) for n in range(12, 22)] == [200] * 10
        files = files_of(folder)
        assert not any(files.values()), files


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_callback_is_lost_when_a_receiver_stops_or_dies(
    number: signal.Signals, redis_url: str, tmp_path: Path
) -> None:
    with (
        running_receiver(redis_url, tmp_path) as first,
        running_receiver(redis_url, tmp_path) as second,
        caddy(tmp_path, [first.port, second.port]) as front,
    ):
        assert not_accepted_while(front, first, number) == []
        first.process.wait(20)


def test_callback_at_a_receiver_that_hangs_goes_to_the_other(
    redis_url: str, tmp_path: Path
) -> None:
    sooner = {"response_header_timeout 10s": "response_header_timeout 1s"}
    with (
        running_receiver(redis_url, tmp_path) as first,
        running_receiver(redis_url, tmp_path) as second,
        caddy(tmp_path, [first.port, second.port], changes=sooner) as front,
    ):
        assert not_accepted_while(front, first, signal.SIGSTOP, bursts=3) == []


def test_no_callback_is_lost_when_the_receiver_closes_idle_connections_first(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        running_receiver(redis_url, tmp_path, idle_timeout=0.1) as one,
        caddy(
            tmp_path, [one.port, one.port], changes={"keepalive 60s": "keepalive 200ms"}
        ) as front,
    ):
        assert asyncio.run(not_accepted(front.port, pauses(30, 0.1, 0.2))) == []
