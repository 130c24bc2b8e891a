"""The console as a person uses it, in Chromium."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sized
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import Route as HeldRoute
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from offhook import queues
from offhook.callback_url import callback_url
from offhook.connection import connect_rq
from offhook.http.callbacks import callbacks
from offhook.inbox import keys
from offhook.operations.bulk import BulkOperation
from offhook_console.moments import url_at
from offhook_console.rendering import NAVIGATION
from tests.conftest import SECRET
from tests.events import event
from tests.installation import ROOT, wait_until
from tests.offhook_console.browsing import HANDLERS, Scene, scene
from tests.offhook_console.conftest import TOKEN
from tests.offhook_console.wire import Wire
from tests.unifiedapi.serving import serve
from unifiedapi.callback import CallStatus
from unifiedapi.resources import EventMethod, EventType
from unifiedapi.sandbox.control import create_exchange
from unifiedapi.sandbox.scenarios import ScriptedLeg, from_outside
from unifiedapi.sandbox.store import OrderedCall, Store

AXE = Path(__file__).parent / "vendor" / "axe" / "axe.min.js"
SECONDS = 30_000  # ms, for what takes milliseconds on an idle machine


CRM = "/?q={e164}"
TO_CRM = "a request to http://127.0.0.1:"
EXAMPLE = ROOT / "examples" / "screen_pop"


class Shop:
    """The target of the handler `shop`.

    Attributes:
        answers: the status of its responses.
        took: the events that it took: the call and the type of each.
        refused: number of those that it did not take.
    """

    def __init__(self) -> None:
        self.answers = 200
        self.took: list[tuple[str, str]] = []
        self.refused = 0

    def of(self, calls: str) -> list[str]:
        """The types of the events that it took of calls whose name begins so."""
        return [type_ for call, type_ in self.took if call.startswith(calls)]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        event = await Request(scope, receive).json()
        if self.answers == 200:
            self.took.append((event["call_id"], event["type"]))
        else:
            self.refused += 1
        await Response(status_code=self.answers)(scope, receive, send)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def console(
    tmp_path_factory: pytest.TempPathFactory, password_hash: str, shop: Shop
) -> Iterator[Scene]:
    """A console with a sandbox PBX, whose calls are quick, a CRM, and a target of events."""
    store, crm = Store.example(), Starlette(routes=[Route("/{path:path}", contact)])
    with (
        serve(create_exchange(store, callbacks, speed=50)) as pbx,
        serve(crm) as crm_url,
        serve(shop) as shop_url,
    ):
        tables = f"""{HANDLERS}
[handlers.shop]
use = "webhook"
events = ["raw"]
retry = []
[handlers.shop.options]
url = "{shop_url}"
private_networks = true
[console]
pop_url = "{crm_url}{CRM}"
[pbx.main]
host = "{pbx}"
token = "sandbox-token"
insecure = true
zone = "UTC"
"""
        with scene(tmp_path_factory.mktemp("console"), password_hash, tables) as made:
            base = f"http://127.0.0.1:{made.installation.port}"
            for type_ in (EventType.DIAL_OUT, EventType.ANSWER_OUT, EventType.HANGUP):
                url = callback_url(base, SECRET, "main", "0003*210", type_.label) + "?n=0"
                store.add_event("0003*210", type=type_, method=EventMethod.POST, url=url)
            made.pbx = store
            yield made


async def contact(request: Request) -> Response:
    return PlainTextResponse("A contact")


def card(page: Page, lane: str, call_id: str):  # type: ignore[no-untyped-def]
    return page.locator(f'#lane-{lane} li[data-name="main/{call_id}"]')


def test_a_call_rings_is_answered_and_ends_without_a_reload(console: Scene) -> None:
    call = console.call("answered", seed=11)
    dial, answer, *rest = call.callbacks
    with console.context() as browser:
        page = browser.sign_in()
        page.evaluate("window.sameDocument = true")
        console.send(dial)
        expect(card(page, "ringing", call.id)).to_be_visible(timeout=SECONDS)
        clock = card(page, "ringing", call.id).locator("[data-clock]")
        before = clock.inner_text()
        expect(clock).not_to_have_text(before, timeout=SECONDS)  # it runs
        console.send(answer)
        expect(card(page, "talking", call.id)).to_be_visible(timeout=SECONDS)
        expect(card(page, "ringing", call.id)).to_have_count(0)
        for callback in rest:
            console.send(callback)
        expect(card(page, "ended", call.id)).to_be_visible(timeout=SECONDS)
        expect(card(page, "talking", call.id)).to_have_count(0)
        expect(page.locator("#figures")).to_contain_text("Calls today", timeout=SECONDS)
        assert page.evaluate("window.sameDocument")
        card(page, "ended", call.id).locator("a").click()
        page.wait_for_url(f"**/calls/main/{call.id}")
        expect(page.locator(".tl .trk svg[role=img]")).to_have_count(1)
        number = re.sub(r"\D", "", dict(dial.parameters)["CallerIDNum"])
        page.goto(f"{console.url}/calls?q={number[-6:]}")
        expect(page.locator(f'tbody a[href="/calls/main/{call.id}"]').first).to_be_visible()


def test_a_missed_caller_is_called_back_with_a_click(
    console: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pbx, ordered = console.pbx, list[Callable[[], object]]()
    assert pbx is not None
    place = pbx.placing

    def hold(call: OrderedCall) -> None:
        loop = asyncio.get_running_loop()
        ordered.append(lambda: loop.call_soon_threadsafe(place, call))

    monkeypatch.setattr(pbx, "placing", hold)
    missed = from_outside("0003*210", {"CallID": "missed-13", "CallerIDNum": "+447700900811"})
    with console.context() as browser:
        page = browser.sign_in("agent")
        page.goto(f"{console.url}/missed")
        console.send(missed.dial(0))
        console.send(missed.hang_up(20, CallStatus.NOANSWER))
        row = page.locator("#missed tr", has_text="+44 7700 900811")
        expect(row).to_contain_text("once, at", timeout=SECONDS)
        expect(page.locator(".side #nav-missed")).to_contain_text("1 open", timeout=SECONDS)
        row.get_by_role("button", name="Call back").click()
        expect(row).to_contain_text("your phone rings", timeout=SECONDS)
        page.evaluate("window.sameDocument = true")
        [place_it] = ordered
        place_it()
        expect(row).to_contain_text("0003*210 called back", timeout=SECONDS)
        expect(page.locator("#missed")).to_contain_text("No missed caller waits", timeout=SECONDS)
        expect(page.locator(".side #nav-missed")).to_be_hidden()
        assert page.evaluate("window.sameDocument")
        wait_until(lambda: bool(pbx.records()), "its end comes in no other test")
        page.goto(f"{console.url}/dial?number=tel:%2B44-7700-900811")
        expect(page.get_by_role("heading", name="Call +44 7700 900811")).to_be_visible()


def test_a_call_pops_up_opens_the_crm_and_is_retracted(console: Scene) -> None:
    def leg(call: str, phone: str, number: str) -> ScriptedLeg:
        return from_outside(phone, {"CallID": call, "CallerIDNum": number})

    with console.context() as browser:
        page = browser.sign_in("agent")
        page.goto(f"{console.url}/me")
        page.locator("[data-pop-when]").select_option("ring")
        with page.expect_popup(timeout=SECONDS) as popped:
            console.send(leg("pop-1", "0003*210", "+447700900101").dial(0))
        crm = popped.value
        crm.wait_for_url("**/?q=%2B447700900101", timeout=SECONDS)
        expect(page.locator("#pop")).to_contain_text("+44 7700 900101", timeout=SECONDS)
        expect(page.locator("#pop")).to_contain_text("Ringing at your phone")
        console.send(leg("pop-1", "0003*211", "+447700900101").dial(0.1))
        console.send(leg("pop-1", "0003*211", "+447700900101").answer(4))
        expect(page.locator("#pop")).to_have_count(0, timeout=SECONDS)
        expect(page.locator("#me")).to_contain_text("taken by 0003*211", timeout=SECONDS)
        second = browser.open("/me")  # tabs do not open it twice
        console.send(leg("pop-2", "0003*210", "+447700900102").dial(0))
        crm.wait_for_url("**/?q=%2B447700900102", timeout=SECONDS)  # in the same tab
        expect(second.locator("#pop")).to_contain_text("+44 7700 900102", timeout=SECONDS)
        assert len(browser.context.pages) == 3
        assert second.evaluate("document.documentElement.dataset.reader") is None
        second.locator("[data-pop-when]").select_option("answer")
        console.send(leg("pop-3", "0003*210", "+447700900103").dial(0))
        console.send(leg("pop-3", "0003*210", "+447700900103").answer(3))
        crm.wait_for_url("**/?q=%2B447700900103", timeout=SECONDS)
        for call in ("pop-1", "pop-2", "pop-3"):
            console.send(leg(call, "0003*210", "+447700900101").hang_up(9, CallStatus.ANSWER))
        console.send(leg("pop-1", "0003*211", "+447700900101").hang_up(9, CallStatus.ANSWER))
        expect(page.locator("#me")).to_contain_text("Your phone is idle", timeout=SECONDS)
        browser.faults = [each for each in browser.faults if not each.startswith(TO_CRM)]


def test_the_example_page_shows_who_calls(console: Scene, tmp_path: Path) -> None:
    page_text = (EXAMPLE / "screen_pop.html").read_text()
    address = console.url.replace("http:", "ws:") + "/live"
    page_text = page_text.replace("wss://console.example.com/live", address)
    (tmp_path / "pop.html").write_text(page_text.replace("ofh_...", TOKEN))
    call = from_outside("0003*210", {"CallID": "example-1", "CallerIDNum": "+447700900104"})
    with console.context() as browser:
        page = browser.context.new_page()
        page.goto(f"file://{tmp_path}/pop.html")
        console.send(call.dial(0))
        expect(page.locator("#who")).to_have_text("ringing:  +447700900104")  # it listens
        console.send(call.hang_up(9, CallStatus.NOANSWER))
        expect(page.locator("#who")).to_have_text("missed:  +447700900104", timeout=SECONDS)
        browser.faults.clear()  # the page is a file


def test_the_example_program_shows_who_calls(console: Scene, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    notify = tmp_path / "notify-send"
    notify.write_text(f'#!/bin/sh\necho "$@" >> {shown}\necho 7\n')
    notify.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    program = subprocess.Popen(
        [sys.executable, EXAMPLE / "screen_pop.py", console.url],
        env={"PATH": path, "OFFHOOK_TOKEN": TOKEN},
    )
    try:
        call = from_outside(
            "0003*210",
            {"CallID": "example-2", "CallerIDNum": "+447700900105", "CallerIDName": "-<b>"},
        )
        console.send(call.dial(0))
        wait_until(lambda: shown.exists() and "-- Your phone rings" in shown.read_text(), "it pops")
        console.send(call.hang_up(9, CallStatus.NOANSWER))
        wait_until(lambda: "Missed" in shown.read_text(), "it is retracted")
    finally:
        program.terminate()
        program.wait(30)
    last = shown.read_text().splitlines()[-1]
    assert last.endswith("--print-id --replace-id=7 -- Missed -&lt;b&gt; +447700900105")


def test_two_tabs_share_one_stream(console: Scene) -> None:
    with console.context() as browser:
        streams: list[str] = []
        browser.context.on(
            "request", lambda each: streams.append(each.url) if "/live" in each.url else None
        )
        first = browser.sign_in()
        expect(first.locator("[data-pulse]")).to_have_text("live feed")
        expect(first.locator("html[data-reader=yes]")).to_have_count(1, timeout=SECONDS)
        wait_until(lambda: told(first, streams) == 1, "it reads a stream")
        second = browser.open("/now")
        call = console.call("answered", seed=12)
        console.send(call.callbacks[0])
        for page in (first, second):
            expect(card(page, "ringing", call.id)).to_be_visible(timeout=SECONDS)
        assert len(streams) == 1
        assert second.evaluate("document.documentElement.dataset.reader") is None
        first.close()  # the other tab takes over
        expect(second.locator("html[data-reader=yes]")).to_have_count(1, timeout=SECONDS)
        for callback in call.callbacks[1:]:
            console.send(callback)
        expect(card(second, "ended", call.id)).to_be_visible(timeout=SECONDS)
        wait_until(lambda: told(second, streams) == 2, "it reads a stream of its own")


def told(page: Page, events: Sized) -> int:
    """The number of events of a browser that Playwright has told, which it does while it waits."""
    page.wait_for_timeout(1)
    return len(events)


def test_what_changes_while_a_second_tab_opens_is_shown_there(console: Scene) -> None:
    call = from_outside("0003*211", {"CallID": "tab-0", "CallerIDNum": "+447700900604"})
    with console.context() as browser:
        first = browser.sign_in()
        expect(first.locator("html[data-reader=yes]")).to_have_count(1)
        second = browser.context.new_page()
        held: list[HeldRoute] = []
        second.route("**/console.js", lambda route: held.append(route))
        second.goto(f"{console.url}/now", wait_until="commit")
        wait_until(lambda: told(second, held) == 1, "it asks for its script")
        console.send(call.dial(0))
        expect(card(first, "ringing", "tab-0")).to_be_visible()
        held[0].continue_()
        expect(card(second, "ringing", "tab-0")).to_be_visible()
        console.send(call.hang_up(9, CallStatus.NOANSWER))
        expect(card(second, "ended", "tab-0")).to_be_visible()


def begin_operations(console: Scene) -> None:
    """Let the ten seconds within which operations can be undone be over."""
    with connect_rq(console.installation.redis_url) as redis:
        for id_, stored in redis.hgetall(keys.OPERATIONS).items():
            operation = msgspec.json.decode(stored, type=BulkOperation)
            if operation.state != "waiting":
                continue
            begun = msgspec.structs.replace(operation, due=datetime.now(UTC))
            redis.hset(keys.OPERATIONS, id_, msgspec.json.encode(begun))


def all_is_delivered(console: Scene) -> bool:
    with connect_rq(console.installation.redis_url) as redis:
        return not redis.exists(keys.unfinished(0))


def test_a_broken_handler_is_seen_mended_and_retried_in_order(console: Scene, shop: Shop) -> None:
    def leg(call: str) -> ScriptedLeg:
        return from_outside("0003*210", {"CallID": call, "CallerIDNum": "+447700900701"})

    first, second, refused = leg("broken-0"), leg("broken-1"), leg("broken-2")
    waits, bye = leg("waits"), CallStatus.ANSWER
    with console.context() as browser:
        page = browser.sign_in()
        page.goto(f"{console.url}/handlers")
        wait_until(lambda: all_is_delivered(console), "no call of another test is refused")
        shop.answers = 410
        console.send(refused.dial(0))
        wait_until(lambda: shop.refused == 1, "it is refused for good")
        shop.answers = 500
        for callback in (first.dial(0), first.answer(2), first.hang_up(9, bye),
                         second.dial(0), second.answer(2)):  # fmt: skip
            console.send(callback)
        wait_until(lambda: shop.refused == 6, "it is broken")
        for callback in (waits.dial(0), waits.answer(2)):  # probes, which keep the circuit open
            console.send(callback)
        expect(page.locator("#handlers .band")).to_contain_text(
            "shop: the target is down", timeout=SECONDS
        )
        letters = page.get_by_role("row").filter(has_text="shop").locator("td a")
        expect(letters).to_have_text(re.compile("[678]"), timeout=SECONDS)
        shop.answers = 200
        letters.click()
        page.get_by_role("searchbox").fill("broken")
        page.keyboard.press("Enter")
        page.locator(".facet a", has_text="500").click()
        for does in ("undo", "begin"):
            page.get_by_role("button", name="Retry 5…").click()
            page.get_by_role("button", name="Retry 5", exact=True).click()
            operation = page.locator("#operations section").first
            expect(operation).to_contain_text("5 dead letters will be retried in")
            if does == "undo":
                operation.get_by_role("button", name="Undo").click()
                expect(operation).to_contain_text("Nothing was done to 5 dead letters")
                page.goto(f"{console.url}/dead-letters?handler=shop&q=broken")
                page.locator(".facet a", has_text="500").click()
        begin_operations(console)
        expect(operation).to_contain_text("5 of 5 dead letters retried", timeout=SECONDS)
        wait_until(lambda: len(shop.of("broken")) == 5, "what was retried is delivered", 90)
        console.send(second.hang_up(9, bye))
        wait_until(lambda: len(shop.of("broken")) == 6, "the call goes on behind it")
        for call in ("broken-0", "broken-1"):
            assert shop.of(call) == ["dial-in", "answer-in", "hangup"]
        for each in (refused, waits):  # a call that goes on would open the CRM in later tests
            console.send(each.hang_up(9, bye))
        page.goto(f"{console.url}/handlers")
        expect(page.locator("#handlers .band")).to_have_count(0, timeout=SECONDS)
        page.goto(f"{console.url}/dead-letters?handler=shop&q=broken")
        page.locator("[data-tick]").check()
        page.get_by_role("button", name="Discard 1…").click()
        page.get_by_role("button", name="Discard 1", exact=True).click()
        expect(page.locator("#operations")).to_contain_text("1 dead letter will be discarded")
        page.goto(f"{console.url}/audit")
        asked = page.locator("tbody tr", has_text="asked to discard 1 dead letter")
        expect(asked).to_have_count(1)


def test_a_wall_follows_calls_and_goes_dark_when_its_link_is_revoked(console: Scene) -> None:
    with console.context() as people, console.context() as hall:
        page = people.sign_in("supervisor")
        page.goto(f"{console.url}/people")
        page.get_by_role("button", name="New wall link…").click()
        page.get_by_label("Name of the screen").fill("Hall")
        page.get_by_role("button", name="Make the link").click()
        screen = hall.open(page.locator("#wall-url").inner_text().removeprefix(console.url))
        call = console.call("answered", seed=32)
        number = dict(call.callbacks[0].parameters)["CallerIDNum"]
        console.send(call.callbacks[0])
        card = screen.locator("li.c", has_text=f"…{number[-3:]}")
        expect(card).to_contain_text("ringing", timeout=SECONDS)
        console.send(call.callbacks[1])
        expect(card).to_contain_text("talking", timeout=SECONDS)
        assert number[-4:] not in screen.content()
        page.goto(f"{console.url}/people")
        page.get_by_role("button", name="Revoke Hall").click()
        expect(screen.locator("body")).to_contain_text("This wall link was revoked")
        assert screen.locator("li.c").count() == 0
        for callback in call.callbacks[2:]:
            console.send(callback)
        hall.faults = [each for each in hall.faults if "404" not in each]


def test_a_cut_feed_is_marked_and_resumes_without_a_gap_or_a_reload(console: Scene) -> None:
    first, second = (
        from_outside("0003*210", {"CallID": f"cut-{n}", "CallerIDNum": "+447700900601"})
        for n in range(2)
    )
    with (
        closing(Wire(console.port)) as wire,
        console.context(f"http://127.0.0.1:{wire.port}") as browser,
    ):
        browser.context.clock.install()
        page = browser.sign_in("agent")
        expect(page.locator("html[data-reader=yes]")).to_have_count(1, timeout=SECONDS)
        page.evaluate("""() => {
            window.pops = [];
            document.addEventListener("offhook-pop", ({ detail }) => {
                const { call, state } = detail;
                if (call.startsWith("main/cut-")) window.pops.push([call, state]);
            });
        }""")
        console.send(first.dial(0))
        expect(card(page, "ringing", "cut-0")).to_be_visible(timeout=SECONDS)
        mark, away = page.locator("[data-pulse]"), page.locator("#redis-away")
        talked = [first.answer(2), first.hang_up(9, CallStatus.ANSWER)]
        for cut, feed, words, meanwhile, state, call in (
            (wire, "broken", "live feed broken off", talked, "ended", "cut-0"),
            (console.redis, "down", "Redis does not answer", [second.dial(0)], "ringing", "cut-1"),
        ):
            # From here on, the page's time passes only as told, however slow this machine is.
            page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 60)
            cut.cut()
            expect(page.locator(f"html[data-feed={feed}]")).to_have_count(1, timeout=SECONDS)
            expect(mark).to_have_text("live feed")  # it may be back at once
            page.clock.run_for(3000)
            expect(mark).to_contain_text(words)
            expect(page.locator("html.feed-stale")).to_have_count(0)
            page.clock.run_for(8000)
            expect(page.locator("html.feed-stale")).to_have_count(1)
            expect(away).to_be_visible(visible=feed == "down")
            for callback in meanwhile:
                console.send(callback)
            page.clock.resume()
            cut.mend()
            expect(card(page, state, call)).to_be_visible(timeout=SECONDS)
            # In this document: the stream goes on where it broke off.
            assert [f"main/{call}", state] in page.evaluate("window.pops")
            expect(mark).to_have_text("live feed", timeout=SECONDS)
            expect(page.locator("html.feed-stale")).to_have_count(0)
            expect(away).to_be_hidden()
        assert any(b"last-event-id: " in each.lower() for each in wire.sent)
        browser.faults = [each for each in browser.faults if "net::ERR_" not in each]
        console.send(second.hang_up(9, CallStatus.NOANSWER))
        expect(card(page, "ended", "cut-1")).to_be_visible(timeout=SECONDS)


def test_a_slow_fetch_does_not_put_back_what_has_changed_meanwhile(console: Scene) -> None:
    call = from_outside("0003*210", {"CallID": "slow-0", "CallerIDNum": "+447700900602"})
    with console.context() as browser:
        page = browser.sign_in("agent")
        expect(page.locator("html[data-reader=yes]")).to_have_count(1, timeout=SECONDS)
        for callback in (call.dial(0), call.answer(2)):
            console.send(callback)
        expect(card(page, "talking", "slow-0")).to_be_visible(timeout=SECONDS)
        held: list[HeldRoute] = []
        page.route("**/now", lambda route: held.append(route))
        with page.expect_request("**/now"):
            page.evaluate("document.body.dispatchEvent(new CustomEvent('live-all'))")
        while not held:
            page.wait_for_timeout(10)
        answer = held[0].fetch()
        console.send(call.hang_up(9, CallStatus.ANSWER))
        expect(card(page, "ended", "slow-0")).to_be_visible(timeout=SECONDS)
        page.evaluate("""() => {
            document.addEventListener("htmx:finally:request", () => {
                document.documentElement.dataset.fetched = "yes";
            });
        }""")
        held[0].fulfill(response=answer)
        # Not `wait_for_function`: the page's policy forbids the `eval` of its second look.
        expect(page.locator("html[data-fetched=yes]")).to_have_count(1)
        expect(card(page, "ended", "slow-0")).to_be_visible()
        expect(card(page, "talking", "slow-0")).to_have_count(0)


def test_what_changes_before_the_feed_begins_is_shown(console: Scene) -> None:
    call = from_outside("0003*210", {"CallID": "late-0", "CallerIDNum": "+447700900603"})
    path = "/calls/main/late-0"

    def stored(part: str) -> bool:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.get(f"{console.url}/api/v1{part}", headers=headers, timeout=30)
        return answer.status_code == 200 and '"missed"' in answer.text

    with console.context() as browser:
        page = browser.sign_in("agent")
        console.send(call.dial(0))
        expect(card(page, "ringing", "late-0")).to_be_visible()
        held: list[HeldRoute] = []
        page.route("**/live?*", lambda route: held.append(route))
        page.goto(console.url + path)
        before = page.locator(".side #nav-missed").text_content() or ""
        wait_until(lambda: told(page, held) == 1, "it asks for the stream")
        console.send(call.hang_up(20, CallStatus.NOANSWER))
        wait_until(lambda: stored(path), "the call has ended")
        expect(page.locator("#call .ph .b")).to_have_text("ringing")
        held[0].continue_()
        expect(page.locator("#call .ph .b")).to_have_text("missed")
        expect(page.locator(".side #nav-missed")).not_to_have_text(before)


def test_time_travel_goes_back_and_on_and_returns(console: Scene) -> None:
    with console.context(timezone_id="Asia/Tokyo") as browser:
        page = browser.sign_in()
        wanted = page.evaluate(
            """() => {
                const at = new Date(Date.now() - 300000);
                return [at.toTimeString().slice(0, 8), at.toISOString().slice(0, 19) + "Z"];
            }"""
        )
        page.get_by_label("Go back to…").fill(wanted[0])
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/now?at={wanted[1]}")
        expect(page.locator(".band.hold")).to_contain_text(wanted[0])  # in the viewer's zone
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(lambda url: wanted[1] not in url)
        page.keyboard.press("ArrowRight")
        page.wait_for_url(f"**/now?at={wanted[1]}")
        page.get_by_role("slider").press("ArrowLeft")
        page.wait_for_url(lambda url: wanted[1] not in url)
        page.get_by_role("link", name="Back to live").click()
        page.wait_for_url("**/now")
        page.get_by_role("link", name="Wall").click()
        page.wait_for_url("**/wall")
        page.keyboard.press("Escape")
        page.wait_for_url("**/now")


def test_a_wrong_password_is_refused(console: Scene) -> None:
    with console.context() as browser:
        page = browser.open("/sign-in")
        page.get_by_label("Name").fill("operator")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("do not go together")
        browser.faults = [each for each in browser.faults if "401" not in each]


def test_keys_lead_to_pages_and_rows(console: Scene) -> None:
    with console.context() as browser:
        page = browser.sign_in()
        page.keyboard.press("g")
        page.keyboard.press("h")
        page.wait_for_url("**/handlers")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url("**/handlers/crm")
        page.keyboard.press("?")
        expect(page.locator("#keys-dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#keys-dialog")).to_be_hidden()
        page.keyboard.press("g")
        page.keyboard.press("c")
        page.wait_for_url("**/calls")
        page.keyboard.press("/")
        expect(page.locator("[type=search]")).to_be_focused()


def test_keys_work_as_soon_as_the_dialog_of_keys_is_closed(console: Scene) -> None:
    with console.context() as browser:
        page = browser.sign_in()
        page.keyboard.press("?")
        expect(page.locator("#keys-dialog")).to_be_visible()
        page.evaluate("""() => {  // before the next frame, until which the dialog has the focus
            document.getElementById("keys-dialog").close();
            for (const key of ["g", "h"]) {
                const pressed = new KeyboardEvent("keydown", { key, bubbles: true });
                document.activeElement.dispatchEvent(pressed);
            }
        }""")
        page.wait_for_url("**/handlers")


def pages_of(console: Scene) -> list[str]:
    """Return the path of every page, with something to show on each."""
    for n, status in enumerate((None, CallStatus.NOANSWER)):
        leg = from_outside("0003*210", {"CallID": f"axe-{n}", "CallerIDNum": f"+44770090012{n}"})
        console.send(leg.dial(0))
        if status is not None:
            console.send(leg.hang_up(20, status))
    call = console.call("queue", seed=21)
    for callback in call.callbacks:
        console.send(callback)
    letters = [event("axe", n) for n in range(2)]
    with connect_rq(console.installation.redis_url) as rq:
        for n, each in enumerate(letters):
            queues.bury(rq, "crm", each, attempt=6, error=f"50{n}", trace="t")
    letter = queues.dead_letter_id("crm", letters[0].id)
    paths = [f"/{entry.key}" for _, entries in NAVIGATION for entry in entries]
    return [
        *paths,
        "/handlers/crm",
        f"/calls/main/{call.id}",
        f"/dead-letters/{letter}",
        "/missed?state=all",
        "/dial?number=%2B447700900811",
        "/calls?q=none",
        "/wall",
        url_at(datetime.now(UTC) - timedelta(seconds=5)),
    ]


def test_no_page_breaks_its_policy_or_asks_another_host(console: Scene) -> None:
    paths = pages_of(console)
    with console.context() as browser:
        page = browser.sign_in()
        for path in paths:
            page.goto(console.url + path)
            page.wait_for_timeout(200)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_serious(console: Scene, scheme: str, width: int) -> None:
    paths = pages_of(console)
    size = {"width": width, "height": 800}
    # axe itself applies inline styles.
    with console.context(color_scheme=scheme, viewport=size, bypass_csp=True) as browser:
        found = violations(browser.open("/sign-in"))
        page = browser.sign_in()
        for path in paths:
            page.goto(console.url + path)
            found += violations(page)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{path} is {wide} px too wide"
        page.goto(f"{console.url}/dead-letters")
        page.get_by_role("button", name="Discard").first.click()
        found += violations(page)
        page.goto(f"{console.url}/people")
        page.get_by_role("button", name="New wall link…").click()
        found += violations(page)
        page.get_by_label("Name of the screen").fill("Reception")
        page.get_by_role("button", name="Make the link").click()
        page.wait_for_selector("#wall-url")
        found += violations(page)
    assert found == []


TABLES_CUT_OFF = """() => [...document.querySelectorAll(".tw")]
    .filter((each) => each.scrollWidth > each.clientWidth)
    .map((each) => each.getAttribute("aria-label"))"""


def test_pages_in_german_fit_a_phone(console: Scene) -> None:
    paths = pages_of(console)
    with console.context(viewport={"width": 390, "height": 800}) as browser:
        page = browser.sign_in()
        page.locator("[data-language=de]:visible").click()
        expect(page.locator("html[lang=de]")).to_be_attached(timeout=SECONDS)
        for path in paths:
            page.goto(console.url + path)
            assert page.locator("html[lang=de]").count() == 1, path
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{path} is {wide} px too wide"
            assert page.evaluate(TABLES_CUT_OFF) == [], path
        page.goto(f"{console.url}/now")
        # What is fetched or pushed later stays in the language of the page.
        browser.context.add_cookies([{"name": "lang", "value": "en", "url": console.url}])
        call = console.call("answered", seed=41)
        console.send(call.callbacks[0])
        expect(card(page, "ringing", call.id)).to_contain_text("klingelt", timeout=SECONDS)
        with page.expect_response(lambda answer: answer.url.endswith("/now")) as answered:
            page.evaluate("document.body.dispatchEvent(new CustomEvent('live-all'))")
        assert '<html lang="de"' in answered.value.text()
        assert page.reload() is not None
        expect(page.locator("html[lang=en]")).to_be_attached(timeout=SECONDS)


def violations(page: Page) -> list[str]:
    """Return what axe finds serious on a page."""
    page.evaluate(AXE.read_text())
    result = page.evaluate(
        "axe.run(document, {resultTypes: ['violations'], preload: false})"
        ".then((found) => found.violations)"
    )
    return [
        f"{page.url}: {each['id']}: {node['html'][:200]} {node['failureSummary'][:200]}"
        for each in result
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_an_extension_is_set_up_from_its_page(console: Scene) -> None:
    assert console.pbx is not None
    with console.context() as browser:
        page = browser.sign_in()
        page.goto(f"{console.url}/extensions")
        page.get_by_role("button", name="Set up extensions…").click()
        page.get_by_label("Extensions", exact=True).fill("0003*211")
        page.get_by_label("Label", exact=True).fill("Tom Reyes")
        page.get_by_role("button", name="Show the plan…").click()
        expect(page.locator(".plan")).to_contain_text("create dial-in", timeout=SECONDS)
        assert [*console.pbx.events("0003*211")] == []
        page.get_by_role("button", name="Set up 1 extension").click()
        row = page.get_by_role("row").filter(has_text="Tom Reyes")
        expect(row).to_contain_text("up to date", timeout=SECONDS)
        assert len([*console.pbx.events("0003*211")]) == 5
        page.get_by_role("button", name="Compare now").click()
        expect(page.locator(".ph")).to_contain_text("Compared", timeout=SECONDS)
        page.get_by_role("link", name="Differ 0").click()
        expect(page.locator(".empty")).to_contain_text("No extension matches")


def test_handler_is_paused_asked_and_resumed_on_its_page(console: Scene) -> None:
    def has(handler: str, id_: str) -> bool:
        return any(call == id_ for _, call, *_ in console.installation.delivered(handler))

    with console.context() as browser:
        page = browser.sign_in()
        page.goto(f"{console.url}/handlers/crm")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator(".band.hold")).to_contain_text("Paused by operator")
        log = console.installation.log
        wait_until(lambda: "handler crm is paused" in log.read_text(), "the workers know it")
        call = console.call("answered", seed=31)
        for callback in call.callbacks:
            console.send(callback)
        wait_until(partial(has, "log", call.id), "the other handler has the call")
        count = len(call.callbacks)
        expect(page.locator(".band.hold")).to_contain_text(
            "events wait in the inbox", timeout=SECONDS
        )
        assert not has("crm", call.id)
        question = page.locator("#filter")
        question.get_by_label("Events").fill("hangup")
        question.get_by_label("Of").select_option("1h")
        expect(page.locator("#filter-answer")).to_contain_text("It would have got", timeout=SECONDS)
        page.wait_for_url("**/handlers/crm?events=hangup&extensions=&of=1h*")
        page.get_by_role("button", name="Undo").or_(
            page.locator(".band.hold").get_by_role("button", name="Resume")
        ).first.click()
        expect(page.locator(".band.hold")).to_have_count(0, timeout=SECONDS)

        def came() -> bool:
            got = [n for _, each, n, *_ in console.installation.delivered("crm") if each == call.id]
            return len(got) >= count

        wait_until(came, "the events that waited are delivered")
        page.get_by_role("button", name="Send a test event…").click()
        page.get_by_role("button", name="Send it").click()
        # The handler of these tests wants a parameter that a made-up event lacks.
        expect(page.locator("#handler")).to_contain_text(
            "The test event was not delivered", timeout=SECONDS
        )
