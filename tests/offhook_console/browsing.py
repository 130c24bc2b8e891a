"""A whole installation with a console, and the system's Chromium to look at it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from offhook.callback_url import callback_url
from tests.brokers import installed
from tests.conftest import SECRET
from tests.installation import OFFHOOK, Installation, wait_until
from tests.offhook_console.conftest import PASSWORD, TOKEN, users
from tests.offhook_console.wire import Wire
from tests.ports import free_port
from unifiedapi.sandbox.scenarios import Callback, Scenario, ScriptedCall, make_call
from unifiedapi.sandbox.store import Store

expect.set_options(timeout=30_000)  # ms, for what takes milliseconds on an idle machine

PHONES = ("0003*210", "0003*211", "0003*212", "0003*213")
HANDLERS = """
[handlers.crm]
use = "tests.recorders:record"
[handlers.log]
use = "tests.recorders:record"
events = ["hangup"]
"""


class Watched:
    """A browser context that notes what must not happen.

    Attributes:
        faults: errors, reports of the content security policy, requests to other hosts.
    """

    def __init__(self, context: BrowserContext, url: str, sessions: dict[str, Any]) -> None:
        self.context = context
        self.url = url
        self._sessions = sessions
        self.faults: list[str] = []
        context.on("request", self._request)
        context.on("console", lambda message: self._note(message.type, message.text))
        context.on("weberror", lambda error: self.faults.append(str(error.error)))

    def _request(self, request) -> None:  # type: ignore[no-untyped-def]
        if not request.url.startswith(self.url):
            self.faults.append(f"a request to {request.url}")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.faults.append(text)

    def open(self, path: str) -> Page:
        """Open a page in a new tab."""
        page = self.context.new_page()
        page.goto(self.url + path)
        return page

    def sign_in(self, name: str = "operator") -> Page:
        """Sign in; the tab shows Now. An address may send a password only so often."""
        if name in self._sessions:
            self.context.add_cookies(self._sessions[name])
            return self.open("/now")
        page = self.open("/now")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/now")
        cookies = [each for each in self.context.cookies() if each["name"] == "offhook"]
        self._sessions[name] = cookies
        return page


class Scene:
    """The installation, its console and the browser.

    Attributes:
        redis: between the console and Redis.
    """

    def __init__(
        self, installation: Installation, port: int, redis: Wire, browser: Browser
    ) -> None:
        self.installation = installation
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.redis = redis
        self._browser = browser
        self._sessions: dict[str, Any] = {}  # cookies, by user
        self.pbx: Store | None = None  # if the configuration names one

    @contextmanager
    def context(self, url: str = "", **options: object) -> Iterator[Watched]:
        """Open a browser profile of its own; at the end, nothing forbidden has happened in it.

        Args:
            url: of the console, if it is not reached directly.
        """
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = self._browser.new_context(**options)  # type: ignore[arg-type]
        context.set_default_timeout(30_000)
        watched = Watched(context, url or self.url, self._sessions)
        yield watched
        context.close()
        assert watched.faults == [], watched.faults

    def call(self, scenario: str = "answered", seed: int = 1) -> ScriptedCall:
        """Make up a call; `send` sends its callbacks."""
        return make_call(Scenario(scenario), Random(seed), PHONES)

    def send(self, callback: Callback) -> None:
        """Make a callback, as the PBX does."""
        base = f"http://127.0.0.1:{self.installation.port}"
        url = callback_url(base, SECRET, "main", callback.extension, callback.type.label)
        # A number for the handler that records.
        answer = httpx.post(url, data={**callback.parameters, "n": "0"}, timeout=30)
        assert answer.status_code == 200


@contextmanager
def scene(
    folder: Path,
    password_hash: str,
    handlers: str = HANDLERS,
    prepare: Callable[[Installation], object] = lambda installation: None,
) -> Iterator[Scene]:
    """Run everything.

    Args:
        prepare: called before the console starts.
    """
    program = installed("chromium", "chromium")
    settings: dict[str, Any] = {
        "partitions": 1,
        "processes": 1,
        "settle": 0.3,
        "settle_unanswered": 0.3,
    }
    tables = handlers + users(password_hash)
    with Installation.running(folder, tables, **settings) as installation:
        prepare(installation)
        port, redis = free_port(), installation.redis.port
        wire = Wire(redis)
        through = installation.redis_url.replace(f":{redis}", f":{wire.port}")
        with (folder / "console.log").open("wb") as log:
            console = subprocess.Popen(
                [OFFHOOK, "console", "--port", str(port)],
                env=installation.environment | {"OFFHOOK_REDIS_URL": through},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _answers(url), "the console answers")
            with closing(wire), sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
                yield Scene(installation, port, wire, browser)
                browser.close()
                _stop(console, url)
        finally:
            console.terminate()
            console.wait(30)
            print((folder / "console.log").read_text()[-5000:])


def _stop(console: subprocess.Popen[bytes], url: str) -> None:
    """Stop the console: an open stream ends whole, with its last chunk."""
    token = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.stream("GET", f"{url}/live", headers=token, timeout=30) as stream:
        console.terminate()
        stream.read()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/sign-in", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
