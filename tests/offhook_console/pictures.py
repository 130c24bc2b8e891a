"""Takes the pictures in docs/console/: `python -m tests.offhook_console.pictures`."""

import json
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import msgspec
import redis
from argon2 import PasswordHasher

from offhook import CallEvent, EventType, ExtensionSettings, queues
from offhook.call import Kind
from offhook.dialects.voipnow import read_event
from offhook.event import to_stored
from offhook.inbox import keys
from offhook.operations.phone_states import RegistrationState
from offhook.operations.proof import DayProof
from offhook_console.extension_setup import SetupRun
from offhook_console.moments import url_at
from tests.installation import ROOT, Installation, wait_until
from tests.offhook_console.browsing import PHONES, Scene, scene
from tests.offhook_console.conftest import PASSWORD
from tests.offhook_console.test_api import REFUSED
from unifiedapi.sandbox.scenarios import Scenario, ScriptedCall, make_call

HANDLERS = """
[handlers.crm]
use = "console"
[handlers.call-log]
use = "file"
options.path = "calls.jsonl"
[pbx.main]
[console]
pop_url = "https://crm.example.com/search?phone={e164}"
"""
FOLDER = ROOT / "docs" / "console"
LABELS = {
    "0003*210": "Front desk",
    "0003*211": "Tom Reyes",
    "0003*212": "Priya Nair",
    "0003*213": "Aoife Byrne",
    "0003*214": "Meeting room",
    "0003*215": "Workshop",
    "0003*400": "Sales",
}
CALLERS = (
    ("Müller GmbH", "+447700900168"),
    ("Harriet Bloom", "+447700900421"),
    ("Northgate Dental", "+447700900655"),
    ("Kestrel Joinery", "+447700900588"),
    ("", "+447700900307"),
    ("Rowan Pike", "+447700900811"),
    ("Pennine Roofing", "+447700900073"),
    ("Calder Print", "+447700900340"),
    ("Ingrid Solberg", "+447700900530"),
    ("D. Achebe", "+447700900912"),
    ("Okonkwo & Daughters Haulage (Peterborough) Ltd", "+447700900217"),
)
CALLED_BACK = ("Bexley Optics", "+447700900764")
# Scenario, and minutes since it ended.
STORY = [
    *[("answered", 12.0 * n) for n in range(1, 40)],
    *[("missed", 31.0 * n) for n in range(1, 8)],
    *[("queue", 26.0 * n) for n in range(1, 9)],
    *[("outgoing", 17.0 * n) for n in range(1, 14)],
    ("busy", 4.5),
    ("answered", 6.5),
    ("cancelled", 7.5),
    ("missed", 2.2),
    ("answered", 1.2),
]
# Scenario, minutes since it began, how many of its callbacks have come, extensions, and caller.
LIVE = [
    ("queue", 0.4, 1, PHONES, 6),
    ("ring-group", 0.2, 3, ("0003*210", "0003*211", "0003*213"), 0),
    ("outgoing", 1.4, 2, ("0003*214",), 9),
    ("answered", 8.1, 2, PHONES[2:3], 10),
]
TRANSFER = "transfer"
PAGES = {
    "now": "/now",
    "calls": "/calls",
    "missed": "/missed",
    "me": "/me",
    "handlers": "/handlers",
    "quarantine": "/quarantine",
    "extensions": "/extensions",
    "proof": "/proof",
    "people": "/people",
    "wall": "/wall",
}
WALLS = ("Reception screen", "Sales floor")


def events_of(
    call: ScriptedCall, began: datetime, first: int | None, caller: tuple[str, str]
) -> list[CallEvent]:
    """Return the events of a call, with this name and number of the other party."""
    out = call.scenario is Scenario.OUTGOING
    other = (
        {"CalledNumber": caller[1]}
        if out
        else dict(zip(("CallerIDName", "CallerIDNum"), caller, strict=True))
    )
    return [
        read_event(
            pbx="main",
            extension=callback.extension,
            type=EventType(callback.type.label),
            parameters={**callback.parameters, **other, "n": "0"},
            received=began + timedelta(seconds=callback.at),
        )
        for callback in call.callbacks[:first]
    ]


def prepare(installation: Installation) -> None:
    """Fill the installation with a day of calls."""
    now = datetime.now(UTC)
    events: list[CallEvent] = []
    for seed, (scenario, minutes) in enumerate(STORY):
        call = make_call(Scenario(scenario), Random(seed), PHONES)
        began = now - timedelta(minutes=minutes, seconds=call.callbacks[-1].at)
        events += events_of(call, began, None, CALLERS[seed % len(CALLERS)])
    for seed, (scenario, minutes, first, phones, caller) in enumerate(LIVE, start=1000):
        call = make_call(Scenario(scenario), Random(seed), phones)
        events += events_of(call, now - timedelta(minutes=minutes), first, CALLERS[caller])
    transfer = transferred()
    events += events_of(transfer, now - timedelta(minutes=95), None, CALLERS[6])
    for minutes, scenario in ((50, Scenario.MISSED), (28, Scenario.OUTGOING)):
        call = make_call(scenario, Random(1000 + minutes), PHONES)
        events += events_of(call, now - timedelta(minutes=minutes), None, CALLED_BACK)
    with redis.Redis.from_url(installation.redis_url) as client:
        for extension, label in LABELS.items():
            kind = Kind.QUEUE if label == "Sales" else Kind.PHONE
            settings = ExtensionSettings(label=label, kind=kind)
            client.hset(keys.EXTENSIONS, f"main/{extension}", msgspec.json.encode(settings))
            if kind is Kind.PHONE:
                state = RegistrationState(registered=extension != "0003*215")
                client.hset(keys.phones("main"), extension, msgspec.json.encode(state))
        names = [f"main/{extension}" for extension in LABELS]
        client.xadd(keys.EXTENSION_CHANGES, {"names": msgspec.json.encode(names)})
        time.sleep(2.5)  # until the workers know which extension is a queue
        # As append.lua does, but in the past; in one step, before workers append what follows.
        with client.pipeline() as pipeline:
            for number, event in enumerate(sorted(events, key=lambda each: each.received), start=1):
                position = f"{int(event.received.timestamp() * 1000)}-*"
                pipeline.xadd(keys.inbox(0), {"e": to_stored(event), "n": number}, id=position)
            pipeline.set(keys.last(0), len(events))
            pipeline.sadd(keys.unfinished(0), "")
            pipeline.zadd(keys.ready(0), {"": int(now.timestamp() * 1000)})
            pipeline.execute()
        for n, event in enumerate(events[:24]):
            error = ("answered 503: Service Unavailable", "no response within 10 s")[n % 4 == 3]
            queues.bury(client, "crm", event, attempt=6, error=error, trace="Traceback: ...")
        client.xadd(keys.quarantine(), dict(REFUSED))
        client.set(keys.circuit("crm"), "open", ex=60)
        plan = {
            "0003*211": [("+", "create answer-in, answer-out")],
            "0003*213": [("~", "update url of dial-in, hangup")],
        }
        client.hset(keys.DRIFT, mapping={f"main/{n}": json.dumps(each) for n, each in plan.items()})
        compared = SetupRun(
            kind="compare", by="operator", began=now, total=len(LABELS), done=len(LABELS), ended=now
        )
        client.set(keys.SETUP_RUN, msgspec.json.encode(compared))
        for ago in range(14):
            began = now - timedelta(days=ago)
            lost = ids(100 + ago, {3: 1, 6: 3}.get(ago, 0))
            closed = ids(200 + ago, 1 if ago in (6, 11) else 0)
            records = 74 + 7 * (ago * ago % 11)
            proof = DayProof(
                day=began.date(),
                records=records,
                here=records - len(lost),
                recovered=lost,
                closed=closed,
                compared=now - timedelta(minutes=37),
            )
            client.hset(keys.proof("main"), f"{proof.day}", msgspec.json.encode(proof))
    wait_until(lambda: settled(installation), "all calls are folded", seconds=90)


def ids(seed: int, count: int) -> tuple[str, ...]:
    """Return ids of calls that the page of proofs names."""
    calls = [make_call(Scenario.ANSWERED, Random(seed * 10 + n), PHONES) for n in range(count)]
    return tuple(f"main/{call.id}" for call in calls)


def transferred() -> ScriptedCall:
    return make_call(Scenario(TRANSFER), Random(5), PHONES)


def take(made: Scene, folder: Path) -> None:
    """Take a picture of each page."""
    pages = PAGES | {
        "call": f"/calls/main/{transferred().id}",
        "dead-letters": "/dead-letters?handler=crm",
        "handler": "/handlers/call-log?events=calls&extensions=0003*2%3F%3F&of=today",
        "now-at": url_at(datetime.now(UTC) - timedelta(minutes=4)),
    }
    with made.context() as browser:
        page = browser.sign_in()
        for name in WALLS:
            page.goto(f"{made.url}/people")
            page.get_by_role("button", name="New wall link…").click()
            page.get_by_label("Name of the screen").fill(name)
            page.get_by_role("button", name="Make the link").click()
            page.wait_for_selector("#wall-url")
    for scheme, width, names in (
        ("light", 1280, [name for name in pages if name != "wall"]),
        ("dark", 1280, ["handlers"]),
        ("dark", 1920, ["wall"]),
        ("light", 390, ["now"]),
    ):
        size = {"width": width, "height": {390: 844, 1280: 800, 1920: 1080}[width]}
        with made.context(color_scheme=scheme, viewport=size) as browser:
            page = browser.sign_in()
            for name in names:
                page.goto(made.url + pages[name])
                page.evaluate("document.fonts.ready")
                page.wait_for_timeout(500)
                suffix = ("-dark" if scheme == "dark" else "") + ("-phone" if width < 400 else "")
                page.screenshot(path=folder / f"{name}{suffix}.png")

    with made.context() as browser:
        page = browser.sign_in()
        page.locator("[data-language=de]:visible").click()
        page.wait_for_selector("html[lang=de]")
        page.wait_for_timeout(500)
        page.screenshot(path=folder / "now-german.png")


def settled(installation: Installation) -> bool:
    """Whether the workers have put the calls together, and only those that go on are live."""
    with redis.Redis.from_url(installation.redis_url) as client:
        kept = client.zcard(keys.calls(0))
        live = client.zcard(keys.live(0))
        return (kept, live) == (len(STORY) + len(LIVE) + 3, len(LIVE))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    quick = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(PASSWORD)
    with (
        tempfile.TemporaryDirectory() as temporary,
        scene(Path(temporary), quick, HANDLERS, prepare) as made,
    ):
        take(made, FOLDER)
