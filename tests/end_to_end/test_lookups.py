"""Every handler gets the caller's name from the CRM."""

import json
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from offhook.callback_url import callback_url
from tests.conftest import SECRET
from tests.http_target import http_target
from tests.installation import Installation, wait_until
from tests.workers.handlers.crm.hubspot_side import HubSpotSide
from tests.workers.handlers.crm.serving import standing

# As VoipNow sends it: digits only, and the carrier's name.
CALLBACK = {
    "CallID": "1795289400.101",
    "CallerIDNum": "40211234567",
    "CallerIDName": "WIRELESS CALLER",
    "CalledDID": "40318100210",
    "CalledExtension": "0003*210",
    "CallStatus": "CALLING",
    "CallFlow": "IN",
}

HANDLERS = """
[handlers.raw]
use = "tests.recorders:record_whole"
[handlers.whole]
use = "tests.recorders:record_whole"
events = ["call-started"]
[handlers.later]
use = "tests.recorders:record_whole_at_the_second"
retry = [1]
[handlers.chat]
use = "notify"
events = ["call-started"]
options.urls = "json://127.0.0.1:{port}/"
options.body = "{{{{ caller }}}} calls"
"""
CRM = """
[lookups.crm]
use = "hubspot"
timeout = 10
options.token = "{token}"
options.base_url = "{base_url}"
"""
BROKEN = """
[lookups.slow]
use = "tests.offhook.lookups:Slow"
timeout = 0.5
[lookups.broken]
use = "tests.offhook.lookups:Broken"
"""


def call(offhook: Installation, **parameters: str) -> None:
    base = f"http://127.0.0.1:{offhook.port}"
    url = callback_url(base, SECRET, "main", "0003*210", "dial-in")
    form = urllib.parse.urlencode(CALLBACK | parameters).encode()
    with urllib.request.urlopen(url, data=form, timeout=30) as answer:  # noqa: S310
        assert answer.status == 200


def recorded(offhook: Installation, handler: str) -> list[dict[str, Any]]:
    path = offhook.output / handler
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def test_handlers_share_one_lookup_of_the_crm(tmp_path: Path) -> None:
    crm = HubSpotSide()
    with standing(crm), http_target() as chat:
        crm.add_contact("Jane of Acme", "021 123 4567")
        tables = HANDLERS.format(port=chat.port) + CRM.format(**crm.options())
        with Installation.running(tmp_path, tables, region="RO") as offhook:
            call(offhook)
            names = ("raw", "whole", "later")
            wait_until(lambda: all(recorded(offhook, n) for n in names), "each has its event")
            wait_until(lambda: bool(chat.requests), "the chat has its message")
            for name in names:
                [event] = recorded(offhook, name)
                assert event["caller"]["name"] == "Jane of Acme", name
            [started] = recorded(offhook, "whole")
            assert started["summary"]["caller"]["name"] == "Jane of Acme"
            [raw] = recorded(offhook, "raw")
            assert raw["parameters"] == CALLBACK
            assert chat.requests[0].json()["message"] == "Jane of Acme (40211234567) calls"
        assert crm.lines() == [crm.find]


def test_hanging_and_broken_lookups_delay_no_event(tmp_path: Path) -> None:
    with http_target() as chat:
        tables = HANDLERS.format(port=chat.port) + BROKEN
        with Installation.running(tmp_path, tables, region="RO") as offhook:
            call(offhook, CallID="warm-up", CallerIDNum="anonymous")
            names = ("raw", "later")
            wait_until(lambda: all(recorded(offhook, n) for n in names), "the workers are there")
            began = time.monotonic()
            call(offhook)
            wait_until(lambda: len(recorded(offhook, "raw")) == 2, "it is delivered")
            assert time.monotonic() - began < 30  # each of its lookups would take 60
            wait_until(lambda: len(recorded(offhook, "later")) == 2, "it is redelivered")
            for name in names:
                assert recorded(offhook, name)[1]["caller"]["name"] == "WIRELESS CALLER"
            log = offhook.log.read_text()
            assert "lookup slow failed, events continue without its names: did not answer" in log
            assert (
                "lookup broken failed, events continue without its names: ZeroDivisionError" in log
            )
            assert "211234567" not in log
