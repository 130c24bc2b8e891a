"""URLs that were revoked, addresses that may call, and callbacks with a wrong token."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from offhook.callback_url import callback_url, revoke
from offhook.connection import connect
from offhook.inbox import refused
from tests.conftest import SECRET
from tests.receiver.behind_nginx import nginx
from tests.receiver.running import (
    Answer,
    RunningReceiver,
    read_answer,
    running_receiver,
    url,
)

REVOKED = ("main", "0003*210", "dial-in")
NO_REDIS = "redis://127.0.0.1:1/0"


def get(
    receiver: RunningReceiver, path: str, *headers: str, source: str = "127.0.0.1", port: int = 0
) -> Answer:
    """Make a callback from this address."""
    lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    address = ("127.0.0.1", port or receiver.port)
    with socket.create_connection(address, 60, (source, 0)) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return read_answer(connection)


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


# Revoked URLs


@pytest.mark.parametrize("with_redis", [True, False])
def test_revoked_url_is_refused_within_seconds_and_the_new_one_accepted(
    redis_url: str, tmp_path: Path, with_redis: bool
) -> None:
    new = callback_url("", SECRET, *REVOKED, 1)
    with running_receiver(
        redis_url if with_redis else NO_REDIS, tmp_path, duplicate_window=0
    ) as receiver:
        assert get(receiver, f"{url()}?CallID=1").status == 200
        assert get(receiver, f"{new}?CallID=1").status == 200  # before the receiver knows it
        revoke(tmp_path / "revoked.json", [REVOKED])
        eventually(lambda: get(receiver, f"{url()}?CallID=1").status == 404)
        assert get(receiver, f"{new}?CallID=1").status == 200
        for other in (url("hangup"), url(extension="0003*211"), url(pbx="other")):
            assert get(receiver, f"{other}?CallID=1").status == 200
        (tmp_path / "revoked.json").write_text("{")
        eventually(lambda: "is damaged" in receiver.log.read_text())
        assert get(receiver, f"{url()}?CallID=1").status == 404
        assert get(receiver, f"{new}?CallID=1").status == 200


def test_url_that_was_revoked_earlier_is_refused_without_redis(tmp_path: Path) -> None:
    revoke(tmp_path / "revoked.json", [REVOKED])
    revoke(tmp_path / "revoked.json", [REVOKED])
    with running_receiver(NO_REDIS, tmp_path) as receiver:
        for version, status in ((0, 404), (1, 404), (2, 200), (3, 200)):
            path = callback_url("", SECRET, *REVOKED, version)
            assert get(receiver, f"{path}?CallID=1").status == status, version


# Addresses


def test_only_allowed_addresses_may_call(redis_url: str, tmp_path: Path) -> None:
    allowed = '["127.0.0.5", "203.0.113.0/24"]'
    with running_receiver(
        redis_url, tmp_path, allowed_addresses=allowed, proxies='["127.0.0.1"]'
    ) as receiver:
        path = f"{url()}?CallID=1"
        assert get(receiver, path, source="127.0.0.5").status == 200
        assert get(receiver, path, "X-Forwarded-For: 203.0.113.9").status == 200
        for source, header in (
            ("127.0.0.6", "A: b"),
            ("127.0.0.6", "X-Forwarded-For: 203.0.113.9"),  # it is no proxy
            ("127.0.0.1", "A: b"),
            ("127.0.0.1", "X-Forwarded-For: 203.0.114.9"),
            ("127.0.0.1", "X-Forwarded-For: 203.0.113.9, 203.0.114.9"),
            ("127.0.0.1", "X-Forwarded-For: "),
        ):
            answer = get(receiver, path, header, source=source)
            assert (answer.status, answer.code) == (404, "not_found"), (source, header)
        assert get(receiver, "/health/live", source="127.0.0.6").status == 200
        assert "6 callbacks from addresses" in " ".join(receiver.get("/health/ready").json["notes"])


def test_nginx_names_the_client_and_no_client_can_invent_an_address(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        running_receiver(redis_url, tmp_path, allowed_addresses='["127.0.0.5"]') as receiver,
        nginx(tmp_path, [receiver.port], 60) as front,
    ):
        path, forged = f"{url()}?CallID=1", "X-Forwarded-For: 127.0.0.5"
        assert get(receiver, path, source="127.0.0.5", port=front.port).status == 200
        assert get(receiver, path, forged, source="127.0.0.6", port=front.port).status == 404


def test_one_address_above_its_rate_is_refused_and_others_are_not(
    redis_url: str, tmp_path: Path
) -> None:
    with running_receiver(
        redis_url, tmp_path, source_rate=1, proxies='["127.0.0.1"]', duplicate_window=0
    ) as receiver:
        path = f"{url()}?CallID=1"
        answers = [get(receiver, path, source="127.0.0.5") for _ in range(100)]
        assert [answer.status for answer in answers[:30]] == [200] * 30  # saved up
        assert answers[-1].status == 429
        assert answers[-1].code == "too_many"
        assert get(receiver, path, source="127.0.0.6").status == 200
        assert {get(receiver, path).status for _ in range(100)} == {200}  # a proxy has no limit
        assert "(last: 127.0.0.5)" in receiver.log.read_text()


# Wrong tokens


def test_wrong_tokens_are_counted_logged_and_stored_without_the_url(
    redis_url: str, tmp_path: Path
) -> None:
    wrong = url(secret="of before the rotation, forty letters long")
    said = "callbacks with a wrong token: was the secret changed, or a URL revoked?"
    with running_receiver(redis_url, tmp_path) as receiver:
        assert receiver.get("/health/ready").json["notes"] == []
        for path in ("/", "/callback/a/b", "/wp-login.php"):  # anyone's, and no callbacks
            assert get(receiver, path).status == 404
        assert receiver.get("/health/ready").json["notes"] == []
        for _ in range(20):
            assert get(receiver, f"{wrong}?CallID=1", "X-Forwarded-For: 203.0.113.9").status == 404
        assert receiver.get("/health/ready").json["notes"] == [
            f"refused since the start: 20 {said}"
        ]
        logged = receiver.log.read_text()
        assert logged.count(said) == 1
        assert f"refused: 1 {said} (last: 203.0.113.9)" in logged
        assert wrong.rpartition("/")[2] not in logged

        async def stored() -> list[str]:
            async with connect(redis_url) as client:
                return await refused.sentences(client)

        eventually(lambda: asyncio.run(stored()) == [f"refused: 20 {said}"])


# Shares


def test_one_extension_cannot_fill_the_inbox(redis_url: str, tmp_path: Path) -> None:
    loud, quiet = url(extension="0003*666"), url()
    with (
        redis.Redis.from_url(redis_url) as client,
        running_receiver(redis_url, tmp_path, url_rate=10_000, duplicate_window=0) as receiver,
    ):
        assert receiver.get(quiet, b"CallID=1").status == 200
        used = int(client.info("memory")["used_memory"])
        most = max(60_000_000, used * 3)
        client.config_set("maxmemory", most)
        try:
            body = b"CallID=%d" + b"".join(b"&p%d=%s" % (n, b"x" * 4000) for n in range(15))
            statuses = []
            for n in range(2000):
                answer = receiver.post(loud, body % n)
                statuses.append(answer.status)
                if answer.status == 429:
                    break
                time.sleep(0.01)
            assert set(statuses) == {200, 429}
            assert (
                int(client.info("memory")["used_memory"]) < 0.9 * most
            )  # at which all are refused
            assert receiver.get(loud, b"CallID=2").code == "too_many"
            for n in range(20):
                assert receiver.get(quiet, b"CallID=%d" % n).status == 200
            assert receiver.get("/health/ready").json["journal"] == 0
        finally:
            client.config_set("maxmemory", 0)
        eventually(lambda: receiver.get(loud, b"CallID=3").status == 200)  # there is room again


def test_one_extension_cannot_fill_the_journal(tmp_path: Path) -> None:
    loud, quiet = url(extension="0003*666"), url()
    with running_receiver(
        NO_REDIS, tmp_path, url_rate=10_000, journal_size=10_000_000, duplicate_window=0
    ) as receiver:
        body = b"CallID=1" + b"".join(b"&p%d=%s" % (n, b"x" * 4000) for n in range(10))
        statuses = []
        for _ in range(1000):
            statuses.append(receiver.post(loud, body).status)
            if statuses[-1] == 429:
                break
            time.sleep(0.02)
        assert set(statuses) == {200, 429}
        assert receiver.get("/health/ready").json["journal"] < 6_000_000
        for _ in range(20):
            assert receiver.post(quiet, body).status == 200
        assert "(last: main/0003*666)" in receiver.log.read_text()
