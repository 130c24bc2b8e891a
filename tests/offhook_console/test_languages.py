"""The console in several languages: nothing is left in English, and live parts match their page."""

import asyncio
import json
import re
from datetime import timedelta
from gettext import NullTranslations
from html import unescape
from html.parser import HTMLParser
from random import Random
from urllib.parse import urlsplit

import msgspec
import pytest
import redis as blocking
from babel.messages import Catalog
from starlette.requests import HTTPConnection

from offhook import EventType, ExtensionSettings, queues
from offhook.call import Kind
from offhook.event import GROUPS
from offhook.inbox import keys
from offhook.operations.phone_states import RegistrationState
from offhook_console import languages
from offhook_console.languages import ENGLISH, LANGUAGES, language_of, speaking
from offhook_console.people import RIGHTS, Right, View
from offhook_console.rendering import STATIC, environment
from offhook_console.script_words import script_words
from tests.conftest import Configure
from tests.events import event
from tests.offhook_console.catalogue import (
    catalogue,
    compiled,
    extracted,
    po_file,
    strings,
    untranslated,
)
from tests.offhook_console.conftest import PHONES, Console, place, place_calls, running
from tests.offhook_console.template_words import READ, VERBATIM, words_of
from tests.offhook_console.test_api import REFUSED
from tests.offhook_console.test_live_feed import Browser
from tests.offhook_console.test_live_feed import running as running_feed
from tests.offhook_console.test_pages import links
from unifiedapi.sandbox.scenarios import Scenario, make_call

OTHERS = [code for code in LANGUAGES if code != ENGLISH]
TEMPLATES = STATIC.parent / "templates"
# Names in the configuration of the fixture, units, and what is searched for.
DATA = (
    "crm",
    "log",
    "main",
    "console",
    "all",
    "reports",
    "none",
    "Offhook",
    "OFFHOOK",
    "p99",
    "ms",
)
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w+\}|<[^>]+>")


@pytest.fixture(scope="module")
def messages() -> Catalog:
    return extracted()


@pytest.mark.parametrize("code", OTHERS)
def test_every_message_is_translated(messages: Catalog, code: str) -> None:
    known = catalogue(code)
    assert {(each.id, each.context) for each in known} == {
        (each.id, each.context) for each in messages
    }, "run `make translate`"
    assert untranslated(known) == []


@pytest.mark.parametrize("code", OTHERS)
def test_a_translation_has_the_placeholders_and_tags_of_its_message(code: str) -> None:
    for each in catalogue(code):
        if each.id:
            forms = [each.id] if isinstance(each.id, str) else [*each.id]
            wanted = sorted(PLACEHOLDER.findall(forms[-1]))
            *first, last = (sorted(PLACEHOLDER.findall(text)) for text in strings(each))
            assert last == wanted, each.id
            # "Last day" needs no number.
            assert all(set(wanted) - {"{number}", "%(num)s"} <= set(some) for some in first)
            assert all(set(some) <= set(wanted) for some in first), each.id


@pytest.mark.parametrize("code", OTHERS)
def test_the_compiled_catalogue_is_current(code: str) -> None:
    made = po_file(code).with_suffix(".mo").read_bytes()
    assert made == compiled(catalogue(code)), "run `make translate`"


def test_no_word_of_a_template_is_left_out() -> None:
    templates = environment(20.0)
    for path in TEMPLATES.glob("*.html"):
        assert words_of(templates, path.read_text()) == [], path.name


def test_a_word_that_is_left_out_is_found() -> None:
    templates = environment(20.0)
    for source, found in {
        "<p>{{ _('Calls') }}</p>": [],
        "<p>Calls</p>": ["Calls"],
        "<p>{{ _('Calls') }} today</p>": ["today"],
        '<a title="Next page"></a>': ["Next page"],
        '<a class="row"></a><code>offhook dev</code>': [],
        '<p>{{ "open" if x else _("closed") }}</p>': ["open"],
        '<p class="{{ "open" if x else "closed" }}"></p>': [],
        '{{ badge("ok", "check", "done") }}': ["done"],
        '{% set title = "All calls" %}': ["All calls"],
        "{% if x %}<p>Some</p>{% else %}<p>None</p>{% endif %}": ["Some", "None"],
        "{% trans %}Some <b>words</b>{% endtrans %}": [],
    }.items():
        assert words_of(templates, source) == found, source


def test_scripts_and_the_server_agree_on_their_words() -> None:
    scripts = "".join(path.read_text() for path in STATIC.glob("*.js"))
    assert set(re.findall(r"\bwords\.(\w+)", scripts)) == set(script_words())


class Brackets(NullTranslations):
    """A language in which each message is in brackets: what is outside of them is no message."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid1 if n == 1 else msgid2}⟧"

    def pgettext(self, context: str, message: str) -> str:
        return f"⟦{message}⟧"


class Outside(HTMLParser):
    """Collects what a page says outside of the brackets, but for commands and records."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._depth = 0
        self._verbatim: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        classes = (given.get("class") or "").split()
        if self._verbatim:
            self._verbatim += [tag] if tag == self._verbatim[0] else []
        elif tag in VERBATIM or "mono" in classes or ("lang" in given and tag != "html"):
            self._verbatim.append(tag)
        self.found += [
            left for name in READ if (left := self._left(given.get(name) or "", 0)[0].strip())
        ]

    def handle_endtag(self, tag: str) -> None:
        if self._verbatim and tag == self._verbatim[0]:
            self._verbatim.pop()

    def handle_data(self, data: str) -> None:
        left, self._depth = self._left(data, self._depth)
        if left.strip() and not self._verbatim:
            self.found.append(left.strip())

    @staticmethod
    def _left(text: str, depth: int) -> tuple[str, int]:
        left = ""
        for character in text:
            depth += (character == "⟦") - (character == "⟧")
            left += " " if depth or character == "⟧" else character
        return left, depth


async def test_no_page_says_anything_that_is_no_message(
    console: Console, rq: blocking.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = [
        make_call(Scenario(name), Random(seed), PHONES)
        for seed, name in enumerate(("queue", "missed", "busy"))
    ]
    await place_calls(*((call, timedelta(minutes=5)) for call in ended))
    calls = [*ended, await place("outgoing", 2, seed=4, ago=timedelta(seconds=9))]
    queues.bury(rq, "crm", event(), attempt=1, error="503", trace="t")
    rq.xadd(keys.quarantine(), REFUSED)
    for extension in PHONES:
        kind = Kind.PHONE if extension != PHONES[-1] else Kind.QUEUE
        label = msgspec.json.encode(ExtensionSettings(label=extension, kind=kind))
        rq.hset(keys.EXTENSIONS, f"main/{extension}", label)
        state = RegistrationState(registered=extension == PHONES[0])
        rq.hset(keys.phones("main"), extension, msgspec.json.encode(state))
    data = {each for call in calls for one in call.callbacks for each in one.parameters.values()}
    data |= {*EventType, *GROUPS, *RIGHTS, *Right, *PHONES, *Kind, *DATA}
    data |= {each.name for each in LANGUAGES.values()}
    known = {word for each in data for word in re.findall(r"[^\W\d_]+", str(each))}
    monkeypatch.setitem(languages.CATALOGUES, "de", Brackets())
    said: dict[str, list[str]] = {}
    async with running() as again:
        client = again("operator")
        to_see = ["/now", "/me", "/wall", "/dial", "/dial?number=%2B4420", "/none", "/calls?q=none"]
        to_see += ["/handlers/crm?of=today", "/calls?outcome=missed&live=no"]
        while to_see:
            path = to_see.pop()
            answer = await client.get(path, headers={"Accept-Language": "de"})
            assert '<html lang="de"' in answer.text, path
            page = Outside()
            page.feed(answer.text)
            said[path] = [
                left for left in page.found if set(re.findall(r"[^\W\d_]{2,}", left)) - known
            ]
            paths = {urlsplit(each).path for each in [*said, *to_see]}
            for link in links(answer.text):
                if link.startswith("/") and urlsplit(link).path not in {*paths, "/calls.csv"}:
                    to_see.append(link)
                    paths.add(urlsplit(link).path)
    assert {path: left for path, left in said.items() if left} == {}
    assert len(said) >= 15, said


async def test_a_page_is_in_the_language_of_the_browser(console: Console) -> None:
    client = console("")
    for accepted, heading in {
        "de": "An der Konsole anmelden",
        "de-AT,de;q=0.9,en;q=0.8": "An der Konsole anmelden",
        "fr": "Sign in to the console",
        "": "Sign in to the console",
    }.items():
        page = (await client.get("/sign-in", headers={"Accept-Language": accepted})).text
        assert heading in page, accepted
        assert f'<html lang="{"de" if "de" in accepted else "en"}"' in page
    refused = await client.post(
        "/sign-in", data={"name": "x", "password": "y"}, headers={"Accept-Language": "de"}
    )
    assert "Name und Passwort passen nicht zusammen. Noch 4 Versuche" in unescape(refused.text)


async def test_the_api_and_exports_are_in_english(console: Console) -> None:
    await place("missed", seed=2)
    async with running() as again:
        client = again("operator")
        paths = ("/api/v1/calls/main/none", "/api/v1/calls?outcome=none", "/calls.csv")
        plain = [(await client.get(path)).text for path in paths]
        client.cookies.set("lang", "de")
        german = {"Accept-Language": "de"}
        assert [(await client.get(path, headers=german)).text for path in paths] == plain
        assert "There is no such call" in plain[0]
        assert ",missed," in plain[2]


async def test_a_live_fragment_is_in_the_language_of_its_page(configure: Configure) -> None:
    configure()
    async with running_feed() as feed:
        english, german = (
            Browser(feed, View(masked=False, language=code)) for code in (ENGLISH, "de")
        )
        await asyncio.sleep(0)
        await place("answered", 1, seed=2, ago=timedelta(seconds=5))
        await german.until("klingelt")
        await german.until("Anrufe heute")
        await english.until("Calls today")
        assert "ringing" in english.html
        assert "klingelt" not in english.html
        assert "Calls today" not in german.html


def test_a_language_is_said_by_the_url_the_page_a_cookie_or_the_browser() -> None:
    def language(path: str = "/now", query: str = "", **headers: str) -> str:
        sent = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": sent}
        return language_of(HTTPConnection(scope | {"server": ("console.test", 80)}))

    assert language() == "en"
    assert language(accept_language="de") == "de"
    assert language(accept_language="en;q=0.5, de;q=0.6") == "de"
    assert language(accept_language="en, de") == "en"
    assert language(accept_language="fr, *;q=0.1, DE-ch;q=0.2") == "de"
    for hostile in (
        "de;q=nan",
        "de;q=",
        "de;q=0",
        "de;x",
        ";;;",
        "fr," * 1000 + "de",
        "*",
        "d\xe9",
    ):
        assert language(accept_language=hostile) == "en", hostile
    assert language(accept_language="en", cookie="lang=de") == "de"
    assert language(accept_language="de", cookie="lang=../../etc/passwd") == "de"
    assert language(cookie="lang=de", offhook_language="en") == "en"
    assert language(query="lang=de", offhook_language="en", cookie="lang=en") == "de"
    assert language(path="/api/v1/calls", query="lang=de", cookie="lang=de") == "en"


def test_numbers_and_times_are_written_as_in_the_language() -> None:
    with speaking("de"):
        assert languages.count(1234567) == "1.234.567"
        assert languages.decimal("0.4") == "0,4"
        words = script_words()
    assert (words["thousands"], words["decimal"]) == (".", ",")
    assert json.dumps(words).count("⟦") == 0
    assert [len(words[each].split()) for each in ("months", "weekdays")] == [12, 7]
