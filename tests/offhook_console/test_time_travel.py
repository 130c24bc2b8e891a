"""The wallboard as it was: from kept calls, at any second."""

import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from offhook.call import Call, Leg, Outcome, Party
from offhook_console.moments import moment_at, url_at
from offhook_console.past_board import call_at
from offhook_console.problem_details import ConsoleError
from tests.offhook_console.conftest import Console, place, running

BEGAN = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


CALL = Call(
    id="1",
    pbx="main",
    direction="in",
    caller=Party(number="+447700900168"),
    called=Party(extension="0003*210"),
    started=BEGAN,
    answered=after(20),
    ended=after(60),
    answered_by="0003*211",
    ring_seconds=20.0,
    talk_seconds=40.0,
    outcome=Outcome.ANSWERED,
    closed_by="hangup",
    legs=(
        Leg(extension="0003*210", direction="in", rang=BEGAN, ended=after(10), status="NOANSWER"),
        Leg(extension="0003*211", direction="in", rang=after(10), answered=after(20),
            ended=after(60), status="ANSWER"),
    ),
)  # fmt: skip


def test_a_call_is_shown_as_it_was_known_then() -> None:
    assert call_at(CALL, after(-1)) is None
    ringing = call_at(CALL, after(5))
    assert ringing is not None
    assert (ringing.outcome, ringing.closed_by, ringing.answered_by) == (None, None, None)
    assert ringing.ring_seconds == 5
    assert [(leg.extension, leg.ended) for leg in ringing.legs] == [("0003*210", None)]
    talking = call_at(CALL, after(30))
    assert talking is not None
    assert (talking.answered_by, talking.talk_seconds, talking.ended) == ("0003*211", 10, None)
    assert [leg.status for leg in talking.legs] == ["NOANSWER", None]
    assert call_at(CALL, after(60)) == CALL


def test_a_call_answered_at_an_unknown_time_talks_all_along_as_on_the_live_board() -> None:
    unknown = msgspec.structs.replace(CALL, answered=None, ring_seconds=None, talk_seconds=None)
    seen = call_at(unknown, after(5))
    assert seen is not None
    assert seen.answered_by == "0003*211"


@pytest.mark.parametrize(
    ("text", "hours"), [("10:42", 0), ("10:42:00", 0), ("11:00", -24), ("2026-05-01T10:42:00", 0)]
)
def test_a_time_of_day_is_within_the_last_24_hours(text: str, hours: int) -> None:
    now = datetime(2026, 5, 1, 10, 59).astimezone()
    hour, minute = map(int, text[-8:].split("T")[-1].split(":")[:2])
    wanted = datetime(2026, 5, 1, hour, minute).astimezone()
    assert moment_at(text, now) == wanted + timedelta(hours=hours)


@pytest.mark.parametrize("text", ["24:00", "x", "10:99", "2026-13-01T00:00", "9" * 99])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ConsoleError):
        moment_at(text, BEGAN)


async def test_the_board_is_as_it_was(console: Console) -> None:
    placed = await place("answered", seed=4, ago=timedelta(hours=2))
    async with running() as clients:
        client = clients("supervisor")
        known = (await client.get(f"/api/v1/calls/main/{placed.id}")).json()["call"]
        dial, answer, end = (
            datetime.fromisoformat(known[each]) for each in ("started", "answered", "ended")
        )

        async def lanes(moment: datetime) -> list[str]:
            state = (await client.get(f"/api/v1/board?at={moment:%Y-%m-%dT%H:%M:%SZ}")).json()
            return [lane for lane in ("ringing", "talking", "ended") if state[lane]]

        second = timedelta(seconds=1)
        assert await lanes(dial - 2 * second) == []
        assert await lanes(dial + 2 * second) == ["ringing"]
        assert await lanes(answer + 2 * second) == ["talking"]
        assert await lanes(end + 3 * second) == ["ended"]
        assert await lanes(end + timedelta(minutes=12)) == []
        page = (await client.get(url_at(answer + 2 * second))).text
        assert "You are looking at" in page
        assert 'data-live=""' in page
        assert "data-past" in page
        assert placed.id in page
        assert re.findall(r'href="(/now\?at=[^"]+)" data-step="(\w+)"', page) == [
            (url_at(answer + 2 * second - timedelta(minutes=1)), "back"),
            (url_at(answer + 2 * second + timedelta(minutes=1)), "on"),
        ]
        own = (await clients("agent").get(url_at(answer + 2 * second))).text
        mine = any(each.extension == "0003*210" for each in placed.callbacks)
        assert (placed.id in own) is mine
        masked = (await clients("viewer").get(url_at(answer + 2 * second))).text
        number = dict(placed.callbacks[0].parameters)["CallerIDNum"]
        assert number[-6:] not in re.sub(r"[ ()-]", "", masked)
        shown = (await client.get(f"/calls/main/{placed.id}")).text
        (link,) = re.findall(r'href="(/now\?at=[^"]+)"', shown)
        assert placed.id in (await client.get(link)).text


async def test_the_future_is_now(console: Console) -> None:
    client = console("viewer")
    answer = await client.get("/now?at=2999-01-01T00:00:00Z")
    assert (answer.status_code, answer.headers["location"]) == (303, "/now")
    assert (await client.get("/now?at=")).status_code == 200
    assert (await client.get("/now?at=x")).status_code == 400
    assert (await client.get("/now?at=1000-01-01T00:00:00Z")).status_code == 200
    assert (await client.get("/api/v1/board?at=2999-01-01T00:00:00Z")).status_code == 200
