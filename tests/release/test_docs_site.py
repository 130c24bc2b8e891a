"""The documentation as a site: complete, searchable, and with nothing from other hosts."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import sync_playwright

from offhook.event import CallEvent, EventType
from offhook_cli import COMMANDS
from release import docs_site
from tests.brokers import installed
from tests.installation import wait_until
from tests.ports import free_port


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the site, as `make docs` builds it."""
    docs_site.main()  # raises for a broken link or anchor
    port = str(free_port())
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", port]
    with subprocess.Popen(
        command, cwd=docs_site.ROOT / "build" / "site", stderr=subprocess.DEVNULL
    ) as server:
        yield f"http://127.0.0.1:{port}"
        server.kill()


def test_every_page_is_in_the_navigation() -> None:
    navigation = (docs_site.ROOT / "zensical.toml").read_text()
    for page in docs_site.places().values():
        assert f'"{page}"' in navigation


def test_reference_has_every_command_setting_and_event(tmp_path: Path) -> None:
    docs_site.write(tmp_path / "pages")
    reference = tmp_path / "pages" / "reference"
    commands = (reference / "commands.md").read_text()
    for name in (*COMMANDS, "dead retry", "setup check"):
        assert f"\n## offhook {name}\n" in commands
    assert str(docs_site.ROOT) not in commands
    settings = (reference / "settings.md").read_text()
    for model in docs_site.TABLES.values():
        for name, field in model.model_fields.items():
            assert field.description
            assert f"\n| `{name}` |" in settings
    events = (reference / "events.md").read_text()
    for name in (*(each.value for each in EventType), *CallEvent.__annotations__):
        assert f"\n| `{name}` |" in events


def test_links_that_the_site_does_not_have_become_text() -> None:
    page = "[a](../README.md#b) [c](../Makefile) [d](x.md) [e](https://f.g)\n```\n[h](../i)\n```\n"
    shown = docs_site.relinked(page, Path("docs/index.md"))
    assert shown == "[a](readme.md#b) c [d](x.md) [e](https://f.g)\n```\n[h](../i)\n```\n"


def answers(address: str) -> bool:
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


def test_pages_can_be_searched_and_ask_no_other_host(site: str) -> None:
    asked = set()
    with sync_playwright() as playwright:
        program = installed("chromium", "chromium")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page()
        wait_until(lambda: answers(site), "the site is served")
        page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
        for name in ("console.html", "reference/settings.html", "index.html"):
            page.goto(f"{site}/{name}", wait_until="networkidle")

        def opens() -> bool:
            page.keyboard.press("/")
            return page.locator("input:focus").count() > 0

        wait_until(opens, "the search opens")  # not before the page's script has begun
        page.keyboard.press("Control+a")  # a / too many
        page.keyboard.type("duplicate window")
        found = page.locator("a[href*='architecture.html']", has_text="duplicate window")
        found.first.wait_for(timeout=30_000)
        browser.close()
    assert asked == {"127.0.0.1"}
