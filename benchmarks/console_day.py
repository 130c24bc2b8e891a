"""A day of calls in a minute: the memory of the console, and of a browser that shows them."""

import asyncio
import itertools
import shutil
import time
from collections.abc import Iterable, Iterator

from playwright.async_api import CDPSession, Page, async_playwright

from benchmarks.console_installation import Installation, installation, phone
from benchmarks.load import fields, post, read_answer
from benchmarks.machine import SECRET
from benchmarks.rounds import Figures
from offhook.callback_url import callback_url

_PHONES = 100
_STEPS = (("dial-in", "CALLING"), ("answer-in", "ANSWER"), ("hangup", "ANSWER"))
_BEHIND = 40  # calls that begin between two callbacks of one call
_SETTLE = "settle = 0.3\nsettle_unanswered = 0.3\n"  # calls end in seconds, not in minutes
_LOOKS = 4  # at the memory: after the first, caches and lists are full
_WITHIN = 60_000  # ms until the page shows all calls

_SHOWS = """(calls) => {
    const shown = document.querySelector("#figures dd");
    return shown && Number(shown.textContent.replaceAll(",", "")) >= calls;
}"""


def day(url: str, calls: int, rate: float) -> Figures:
    """Make a day's calls while a browser shows the wallboard.

    Args:
        calls: number of calls.
        rate: of them that begin in a second.

    Returns:
        After a quarter of the calls, and after all: the memory of the console and of the page's
        scripts in MB, and the nodes of its document.
    """
    with installation(url, 0, more=_SETTLE) as made:
        return asyncio.run(_watched(made, calls, rate))


async def _watched(made: Installation, calls: int, rate: float) -> Figures:
    requests, part = _requests(), calls // _LOOKS
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        context = await browser.new_context(base_url=f"http://127.0.0.1:{made.console}")
        name, _, value = made.cookie.partition("=")
        await context.add_cookies(
            [{"name": name, "value": value, "domain": "127.0.0.1", "path": "/"}]
        )
        page = await context.new_page()
        await page.goto("/now")
        await page.wait_for_selector("html[data-feed=up]", state="attached")
        inspector = await context.new_cdp_session(page)
        looks = []
        for number in range(1, _LOOKS + 1):
            some = itertools.islice(requests, part * len(_STEPS))
            await _send(made.receiver, some, rate * len(_STEPS))
            # Those that have just begun may come a moment later.
            await page.wait_for_function(_SHOWS, arg=number * part - 2 * _BEHIND, timeout=_WITHIN)
            looks.append(await _look(made, page, inspector))
        await browser.close()
    first, last = looks[0], looks[-1]
    return {f"{name} before": value for name, value in first.items()} | {
        f"{name} after": value for name, value in last.items()
    }


async def _send(port: int, requests: Iterable[bytes], rate: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    for number, request in enumerate(requests):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        writer.write(request)
        await read_answer(reader)
    writer.close()


def _requests() -> Iterator[bytes]:
    """The callbacks of calls that are answered and soon end."""
    for newest in itertools.count():
        for step, (type_, status) in enumerate(_STEPS):
            number = newest - step * _BEHIND
            if number >= 0:
                extension = phone(number % _PHONES)
                path = callback_url("", SECRET, "main", extension, type_)
                form = fields(f"day-{number}", CalledExtension=extension, CallStatus=status)
                yield post(path, form)


async def _look(made: Installation, page: Page, inspector: CDPSession) -> Figures:
    """The memory that is in use, without garbage."""
    await page.wait_for_timeout(3000)  # until the figures were pushed once more
    await inspector.send("HeapProfiler.collectGarbage")
    heap = await inspector.send("Runtime.getHeapUsage")
    document = await inspector.send("Memory.getDOMCounters")
    return {
        "console MB": made.memory() / 1e6,
        "browser MB": heap["usedSize"] / 1e6,
        "nodes": document["nodes"],
    }
