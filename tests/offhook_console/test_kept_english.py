"""What is kept in English is shown in the reader's language, and otherwise as it is."""

import ast
import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import msgspec
import redis as blocking

from offhook.connection import opened
from offhook.inbox import keys
from offhook.operations.audit import AuditEntry
from offhook.operations.pausing import set_paused
from offhook.settings import load_settings
from offhook_console.kept_english import (
    REFUSALS,
    UNREADABLE,
    change_words,
    plan_words,
    refusal_words,
)
from offhook_console.languages import speaking
from tests.conftest import Configure
from tests.offhook_console.conftest import Console, running, users
from tests.offhook_console.test_api import REFUSED

ROOT = Path(__file__).parents[2]
GERMAN = {"Accept-Language": "de"}


def refusals() -> Iterator[str]:
    """Each message of a `RefusedCallback` in the code, with `{}` for its values."""
    paths = [*(ROOT / "receiver").rglob("*.py"), *(ROOT / "offhook" / "dialects").rglob("*.py")]
    for function in (node for path in paths for node in ast.walk(ast.parse(path.read_text()))):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        named = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RefusedCallback":
                message = node.args[2]
                if isinstance(message, ast.Name):
                    message = named[message.id]
                parts = message.values if isinstance(message, ast.JoinedStr) else [message]
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts
                )


def test_every_reason_of_a_refusal_is_known() -> None:
    found = set(refusals())
    assert len(found) > 10
    assert found == {re.sub(r"{\w+}", "{}", each) for each in REFUSALS}


def test_every_reason_why_workers_set_an_event_aside_is_known() -> None:
    code = "".join(path.read_text() for path in (ROOT / "workers").rglob("*.py"))
    assert set(re.findall(r'reason = f"(.+ cannot be read: {error})"', code)) == {*UNREADABLE}


def test_what_is_kept_is_said_in_the_language_that_is_spoken() -> None:
    with speaking("de"):
        assert refusal_words("A callback may have 50 parameters.") == (
            "Ein Callback darf 50 Parameter haben."
        )
        assert refusal_words("A reason of an earlier version.") is None
        assert plan_words("update url of answer-in") == "url von answer-in ändern"
        assert plan_words("label: Front desk") == "label: Front desk"


def test_an_entry_of_another_version_stays_as_it_is() -> None:
    entry = AuditEntry(at=datetime.now(UTC), by="ruth", did="paused {crm}")
    change = msgspec.structs.replace
    with speaking("de"):
        assert change_words(entry) is None
        assert change_words(change(entry, change="moon-moved")) is None
        assert change_words(change(entry, change="handler-paused")) is None  # without its handler
        asked = change(entry, change="retry-asked", details={"number": 4021})
        assert change_words(asked) == (
            "hat veranlasst, 4.021 unzustellbare Ereignisse erneut zuzustellen"
        )
        more = change(entry, change="handler-paused", details={"handler": "crm", "number": 2})
        assert change_words(more) == "hat crm pausiert"
        assert change_words(change(asked, details={"number": "x"})) is None
        hostile = change(entry, change="handler-paused", details={"handler": "{x.__class__}"})
        assert change_words(hostile) == "hat {x.__class__} pausiert"


async def test_pages_translate_what_they_know_and_mark_the_rest_as_english(
    console: Console, rq: blocking.Redis
) -> None:
    client = console("operator")
    assert (await client.post("/handlers/crm/pause")).status_code == 303
    entry = msgspec.json.encode({"at": datetime.now(UTC), "by": "ruth", "did": "moved <b>"})
    await asyncio.to_thread(rq.xadd, keys.audit(""), {"e": entry})
    known = REFUSED | {"message": "The callback has no CallID."}
    for each in (REFUSED, known):
        await asyncio.to_thread(rq.xadd, keys.quarantine(), each)
    audit = unescape((await client.get("/audit", headers=GERMAN)).text)
    assert "<td>hat crm pausiert</td>" in audit
    assert '<td lang="en">moved <b></td>' in audit
    quarantine = (await client.get("/quarantine", headers=GERMAN)).text
    assert "<td>Der Callback hat keine CallID.</td>" in quarantine
    assert '<td lang="en">There is no CallID.</td>' in quarantine
    assert "<td>paused crm</td>" in (await client.get("/audit")).text


async def test_operators_see_the_audit_log_of_each_tenant(
    configure: Configure, password_hash: str
) -> None:
    configure(users(password_hash) + '[tenants.acme]\nextensions = ["main/0003*21?"]\n')
    async with opened(load_settings()) as (inbox, _), running() as console:
        await set_paused(inbox.redis, "acme/crm", "tom", paused=True)
        client, path = console("operator"), "/api/v1/audit"
        page = (await client.get("/audit?tenant=acme")).text
        assert "<td>paused acme/crm</td>" in page
        assert '<option value="acme" selected>' in page
        assert "acme/crm" not in (await client.get("/audit")).text
        [entry] = (await client.get(f"{path}?tenant=acme")).json()["entries"]
        assert (entry["by"], entry["change"]) == ("tom", "handler-paused")
        for unknown in ("/audit?tenant=beta", f"{path}?tenant=beta"):
            assert (await client.get(unknown)).status_code == 404
