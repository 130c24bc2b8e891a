"""`/metrics` of the receiver: who may read it, and what it counts."""

import json
import time
from pathlib import Path

import pytest
import redis
from starlette.requests import Request

from offhook.settings import Settings
from receiver import scraping
from receiver.scraping import Scraping
from tests.conftest import SECRET
from tests.installation import wait_until
from tests.offhook.operations.test_metrics import read
from tests.receiver.running import Answer, RunningReceiver, running_receiver, url
from tests.receiver.storing import Valkey

TOKEN = "a token for the scraper of these tests, long enough"
NOTHING = b'{"error":{"code":"not_found","message":"There is nothing here."}}'


def scrape(receiver: RunningReceiver, *headers: str) -> Answer:
    lines = "".join(f"{each}\r\n" for each in headers)
    head = f"GET /metrics HTTP/1.1\r\nHost: offhook\r\nConnection: close\r\n{lines}\r\n"
    return receiver.exchange(head.encode())


def test_what_became_of_callbacks_is_counted(redis_url: str, tmp_path: Path) -> None:
    with (
        redis.Redis.from_url(redis_url) as client,
        running_receiver(
            redis_url, tmp_path, handlers=json.dumps({"crm": {"use": "console"}})
        ) as receiver,
    ):
        for form in (b"CallID=a&CallFlow=IN", b"CallID=a&CallFlow=IN", b"CallID=b&CallFlow=IN"):
            assert receiver.post(url(), form).status == 200
        assert receiver.post(url(), b"CallFlow=IN").status == 400
        assert receiver.post(url(secret="another secret, which is long enough"), b"").status == 404
        wait_until(lambda: client.hlen("offhook:received") == 4, "the counts are stored")
        answer = scrape(receiver)
        assert answer.status == 200
        assert b"content-type: text/plain; version=" in answer.raw
        found = read(answer.body)
        assert receiver.post(url(), b"CallID=d&CallFlow=IN").status == 200
        receiver.stop()
        assert client.hget("offhook:received", "accepted") == b"3"  # stored before it ended
    assert found['offhook_callbacks_total{outcome="accepted"}'] == 2
    assert found['offhook_callbacks_total{outcome="repeated"}'] == 1
    assert found['offhook_callbacks_refused_total{reason="quarantined"}'] == 1
    assert found['offhook_callbacks_refused_total{reason="wrong_token"}'] == 1
    assert found["offhook_events_total"] == 2
    assert found['offhook_handler_lag_events{handler="crm"}'] == 2


def test_what_is_being_stored_when_the_receiver_ends_is_stored_once(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "valkey")
    try:
        with running_receiver(server.url, tmp_path, patience=30) as receiver:
            assert receiver.get("/health/live").status == 200
            with server.stalled():
                wrong = url(secret="another secret, which is long enough")
                assert receiver.get(wrong).status == 404
                time.sleep(1.2)  # once a second it stores its counts
                receiver.process.terminate()
                time.sleep(0.5)  # it ends, but for these
            receiver.process.wait(60)
        with server.client() as client:
            assert client.hgetall("offhook:received") == {b"wrong_token": b"1"}
    finally:
        server.stop()


def test_only_this_machine_may_read_metrics_by_default(redis_url: str, tmp_path: Path) -> None:
    with running_receiver(redis_url, tmp_path) as receiver:
        assert scrape(receiver).status == 200
        for address in ("203.0.113.9", "127.0.0.1, 203.0.113.9", "2001:db8::1", "nonsense"):
            refused = scrape(receiver, f"X-Forwarded-For: {address}")
            assert (refused.status, refused.body) == (404, NOTHING), address


def test_metrics_addresses_are_the_only_ones(redis_url: str, tmp_path: Path) -> None:
    with running_receiver(redis_url, tmp_path, metrics_addresses='["203.0.113.0/24"]') as receiver:
        assert scrape(receiver).status == 404
        assert scrape(receiver, "X-Forwarded-For: 203.0.113.9").status == 200
        assert scrape(receiver, f"Authorization: Bearer {TOKEN}").status == 404


def test_a_token_is_required_of_everyone(redis_url: str, tmp_path: Path) -> None:
    with running_receiver(redis_url, tmp_path, metrics_token=TOKEN) as receiver:
        right = f"Authorization: Bearer {TOKEN}"
        assert scrape(receiver, right).status == 200
        assert scrape(receiver, right, "X-Forwarded-For: 203.0.113.9").status == 200
        for wrong in ("Authorization: Bearer ", f"Authorization: Bearer {TOKEN}x", "X: y"):
            assert scrape(receiver, wrong).status == 404
        assert scrape(receiver, f"Authorization: Basic {TOKEN}").status == 404
        assert TOKEN.encode() not in receiver.log.read_bytes()


async def test_without_prometheus_client_a_scrape_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scraping, "find_spec", lambda name: None)
    page = Scraping(Settings(secret=SECRET))  # type: ignore[arg-type]
    request = Request({"type": "http", "headers": [], "client": ("127.0.0.1", 1)})
    answer = await page.respond(request)
    assert answer.status_code == 501
    assert b"install offhook[metrics]" in answer.body
    elsewhere = Request({"type": "http", "headers": [], "client": ("203.0.113.9", 1)})
    assert (await page.respond(elsewhere)).status_code == 404
    await page.close()
