"""The notify handler against a real mail server and a real HTTP server."""

import email
import email.policy
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from apprise.plugins.discord import NotifyDiscord

from offhook import Call, EventType, Party, PermanentError, TemporaryError
from offhook.errors import ConfigError
from offhook.event import TROUBLE
from offhook.testing import configured, deliver, sample_call, sample_event, sample_events
from tests.http_target import HttpTarget
from tests.ports import free_port
from workers.handlers.notify import Notify


@dataclass
class Mailbox:
    """The mails that a mail server accepted. `refusal`: its reply to further recipients."""

    mails: list[EmailMessage] = field(default_factory=list)
    refusal: str = ""
    port: int = 0

    @property
    def url(self) -> str:
        return (
            f"mailto://127.0.0.1:{self.port}?mode=insecure&from=pbx@example.com&to=you@example.com"
        )

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = email.message_from_bytes(cast(bytes, envelope.content), policy=email.policy.default)
        self.mails.append(mail)
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(port=free_port())
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    yield box
    controller.stop()


def json_url(target: HttpTarget, path: str = "") -> str:
    return f"json://127.0.0.1:{target.port}/{path}"


def test_a_notification_says_who_called_whom(target: HttpTarget) -> None:
    deliver(configured(Notify, urls=json_url(target)), sample_event("answer-in"))
    sent = target.requests[0].json()
    assert sent["title"] == "answer-in 0003*210"
    assert sent["message"] == "Jane Doe (+40211234567) → 0003*210 (ANSWER)"


def test_a_mail_arrives(mailbox: Mailbox) -> None:
    handler = configured(
        Notify, urls=[mailbox.url], title="Call from {{ caller }}", body="for {{ called }}"
    )
    deliver(handler, sample_event(caller=Party(number="1", name="A <b>&amp; C")))
    (mail,) = mailbox.mails
    text = mail.get_body(("plain",))
    assert mail["Subject"] == "Call from A <b>&amp; C (1)"
    assert text is not None
    assert "for 0003*210" in text.get_content()


def test_markup_in_a_callers_name_stays_text(mailbox: Mailbox) -> None:
    handler = configured(Notify, urls=[mailbox.url], body="{{ caller }}")
    deliver(handler, sample_event(caller=Party(name="<img src=x>", number="1")))
    html = mailbox.mails[0].get_body(("html",))
    assert html is None or "<img" not in html.get_content()


def test_a_title_is_one_line(mailbox: Mailbox) -> None:
    handler = configured(Notify, urls=[mailbox.url], title="{{ event.caller.name }}")
    deliver(handler, sample_event(caller=Party(name="Jane\r\nBcc: all")))
    assert mailbox.mails[0]["Subject"] == "Jane Bcc: all"
    assert mailbox.mails[0]["Bcc"] is None


def test_a_title_is_one_line_for_every_service(target: HttpTarget) -> None:
    handler = configured(Notify, urls=json_url(target), title=" {{ event.caller.name }}\n!")
    deliver(handler, sample_event(caller=Party(name="Jane\r\n\tDoe")))
    assert target.requests[0].json()["title"] == "Jane Doe !"


HOSTILE = (
    "@everyone @all <@123> <@&4> <!channel> <users/all> https://evil.example/x www.evil.example "
    "evil.example [Pay](x) *b* _i_ ~~s~~ `c` ||p|| > q # h\n# big\x1b[2J"
)


def chats(target: HttpTarget, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """URLs of the target as a chat service, by the name of the service."""
    token = "abcdefghijklmnopqrstuvwxyz"
    monkeypatch.setattr(NotifyDiscord, "notify_url", target.url)
    return {
        "Mattermost": f"mmost://127.0.0.1:{target.port}/{token}",
        "Discord": f"discord://1234567890/{token}",
        "Discord with embeds": f"discord://1234567890/{token}?format=markdown",
    }


def test_a_callers_name_mentions_nobody_and_formats_nothing_in_a_chat(
    target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service, url in chats(target, monkeypatch).items():
        for template in ({"body": "{{ caller }}"}, {"title": "{{ caller }}"}):
            target.requests.clear()
            handler = configured(Notify, urls=[url], **template)
            deliver(handler, sample_event(caller=Party(name=HOSTILE, number="1")))
            sent = json.dumps(target.requests[0].json(), ensure_ascii=False)
            assert "evil" in sent, service
            for mention in ("@everyone", "@all", "<@1", "<@&", "<!c", "<users"):
                assert mention not in sent.replace("\\\\", ""), (service, mention)
            for link in ("https://evil", "www.evil", "evil.ex"):
                assert link not in sent.replace("\\\\", ""), (service, link)
            for mark in ("[Pay", "*b*", "_i_", "~~s", "`c", "||p", "# h", "\\n# big"):
                assert f" {mark}" not in sent, (service, mark)
            assert "allow_mentions" not in sent


def test_the_operators_own_markup_and_mentions_stay(
    target: HttpTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "@here *{{ event.type }}* https://crm.example.com/?q={{ event.caller.number }} {{ '*' }}"
    url = chats(target, monkeypatch)["Mattermost"]
    deliver(configured(Notify, urls=[url], title="", body=body), sample_event())
    sent = target.requests[0].json()["text"]
    assert sent == "@here *dial-in* https://crm.example.com/?q=+40211234567 \\*"


def test_a_summary_keeps_its_lines(target: HttpTarget) -> None:
    text = "2 calls: 2 missed\n10:00 Jane\x1b[2J: missed\n11:00 +40211234567: missed"
    event = sample_event("daily-summary", parameters={"text": text})
    deliver(configured(Notify, urls=json_url(target)), event)
    assert target.requests[0].json()["message"] == text.replace("\x1b", " ")


def test_an_empty_text_sends_nothing(target: HttpTarget) -> None:
    handler = configured(
        Notify,
        urls=json_url(target),
        body="{% if event.status == 'NOANSWER' %}Call {{ caller }} back{% endif %}",
    )
    deliver(handler, sample_event("hangup", status="ANSWER"))
    assert target.requests == []
    deliver(handler, sample_event("hangup", status="NOANSWER"))
    assert len(target.requests) == 1


def test_an_unknown_value_is_empty(target: HttpTarget) -> None:
    handler = configured(Notify, urls=json_url(target), body="<{{ event.caller.name }}>")
    deliver(handler, sample_event(caller=Party()))
    assert target.requests[0].json()["message"] == "<>"


def test_every_refusal_is_temporary_and_names_the_status(target: HttpTarget) -> None:
    for status in (400, 410, 429, 503):
        target.plan(status)
        with pytest.raises(TemporaryError, match=rf"1 of 1 targets .* \({status}\)"):
            deliver(configured(Notify, urls=json_url(target)), sample_event())


def test_a_refused_mail_is_temporary(mailbox: Mailbox) -> None:
    handler = configured(Notify, urls=[mailbox.url])
    for refusal in ("550 no such user", "451 try later"):
        mailbox.refusal = refusal
        with pytest.raises(TemporaryError, match="1 of 1 targets"):
            deliver(handler, sample_event())
    mailbox.refusal = ""
    deliver(handler, sample_event(), attempt=2)
    assert len(mailbox.mails) == 1


def test_errors_and_logs_show_no_secret(
    target: HttpTarget, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = f"json://user:hush-one@127.0.0.1:{target.port}/?+X-Token=hush-two"
    handler = configured(Notify, urls=[url])
    target.close()
    with pytest.raises(TemporaryError) as raised:
        deliver(handler, sample_event())
    assert "hush" not in str(raised.value)
    assert "hush" not in caplog.text
    assert "hush" not in repr(handler)


def test_a_redelivery_notifies_all_targets_again(target: HttpTarget) -> None:
    handler = configured(Notify, urls=[json_url(target, "a"), "json://127.0.0.1:1/b"])
    for attempt in (1, 2):
        with pytest.raises(TemporaryError, match="1 of 2 targets"):
            deliver(handler, sample_event(), attempt)
    assert [request.path for request in target.requests] == ["/a", "/a"]


def test_a_burst_is_not_slowed_down(mailbox: Mailbox) -> None:
    """Apprise waits 5 s between two mails of one target object."""
    handler = configured(Notify, urls=[mailbox.url])
    for _ in range(3):
        deliver(handler, sample_event(), timeout=4)
    assert len(mailbox.mails) == 3


def test_urls_may_come_from_a_file_one_per_line(target: HttpTarget, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    file.write_text(f"{json_url(target, 'a')}\n{json_url(target, 'b')}\n")
    deliver(configured(Notify, urls_file=str(file)), sample_event())
    assert sorted(request.path for request in target.requests) == ["/a", "/b"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"urls": []}, "urls"),
        ({"urls": ""}, "urls"),
        ({"urls": ["hush://hush"]}, "urls"),
        ({"urls": ["slack://hush"]}, "urls"),
        ({"urls": ["json://localhost", "hush"]}, "urls"),
        ({"title": "{{ event.colour }}"}, "title"),
        ({"title": "{{ colour }}"}, "title"),
        ({"body": "{{ event.caller.colour }}"}, "body"),
        ({"body": "{% if event.type == 'hangup' %}{{ event.colour }}{% endif %}"}, "body"),
        ({"body": "{{ event."}, "body"),
        ({"body": "{{ event.__class__.__mro__ }}"}, "body"),
        ({"body": "{{ call.colour }}"}, "body"),
        ({"quiet": "22-7"}, "quiet"),
        ({"quiet": "22:00-24:00"}, "quiet"),
        ({"zone": "Bucharest"}, "zone"),
        ({"rings": 0}, "rings"),
    ],
)
def test_an_error_names_a_wrong_option_and_hides_its_value(
    options: dict[str, Any], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError) as raised:
        configured(Notify, **{"urls": ["json://localhost"]} | options)
    (problem,) = raised.value.problems
    assert problem.startswith(f"options.{name}: ")
    assert "hush" not in problem
    assert "hush" not in caplog.text


def test_an_event_that_does_not_fit_the_template_is_permanent(target: HttpTarget) -> None:
    handler = configured(Notify, urls=json_url(target), body="{{ event.parameters.CallID }}")
    with pytest.raises(PermanentError, match="CallID"):
        deliver(handler, sample_event(parameters={}))


# Whole calls


def test_its_default_event_is_a_missed_call(target: HttpTarget) -> None:
    handler = configured(Notify, urls=json_url(target))
    assert Notify.events == (EventType.MISSED_CALL,)
    deliver(handler, sample_event("missed-call"))
    sent = target.requests[0].json()
    assert sent["title"] == "missed-call 0003*210"
    assert sent["message"] == "Jane Doe (+40211234567) → +40318100210 (missed)"


def test_a_template_may_use_the_call(target: HttpTarget) -> None:
    body = "{{ call.answered_by }} talked {{ call.talk_seconds | int }} s"
    deliver(configured(Notify, urls=json_url(target), body=body), sample_event("call-ended"))
    deliver(configured(Notify, urls=json_url(target), body=body), sample_event("hangup"))
    said = [request.json()["message"] for request in target.requests]
    assert said == ["0003*210 talked 45 s"] * 2


@pytest.mark.parametrize(
    ("vip", "sent"), [(["+40211234567"], 1), (["+4021*"], 1), (["+1*"], 0), (["+1*", "*4567"], 1)]
)
def test_a_vips_call_is_sent_at_once(target: HttpTarget, vip: list[str], sent: int) -> None:
    deliver(configured(Notify, urls=json_url(target), vip=vip), sample_event("call-started"))
    assert len(target.requests) == sent


def test_a_vip_list_does_not_filter_other_events(target: HttpTarget) -> None:
    deliver(configured(Notify, urls=json_url(target), vip=["+1*"]), sample_event("missed-call"))
    assert len(target.requests) == 1


@pytest.mark.parametrize(
    ("by_now", "sent"),
    [
        (sample_call(None), 1),
        (sample_call("answered"), 0),
        (sample_call("missed"), 0),  # sent as a missed call
    ],
)
def test_a_call_unanswered_after_some_rings_is_sent(
    target: HttpTarget, by_now: Call, sent: int
) -> None:
    handler = configured(Notify, urls=json_url(target), rings=1)
    began = time.monotonic()
    rang_4_s = datetime.now(UTC) - timedelta(seconds=4)
    deliver(handler, sample_event("call-started", received=rang_4_s), call=by_now)
    assert time.monotonic() - began >= 0.9
    assert len(target.requests) == sent


@pytest.mark.parametrize(
    ("quiet", "zone", "sent"),
    [  # the event is of 19:30:20 UTC
        ("19:00-20:00", "UTC", 0),
        ("19:31-20:00", "UTC", 1),
        ("19:00-19:30", "UTC", 1),
        ("21:00-07:00", "Europe/Bucharest", 0),
        ("22:00-07:00", "Europe/Bucharest", 1),
        ("20:00-19:31", "UTC", 0),
        ("20:00-19:30", "UTC", 1),
    ],
)
def test_quiet_hours_send_nothing(target: HttpTarget, quiet: str, zone: str, sent: int) -> None:
    handler = configured(Notify, urls=json_url(target), quiet=quiet, zone=zone)
    deliver(handler, sample_event("missed-call"))
    assert len(target.requests) == sent


def test_a_preview_equals_the_notification(target: HttpTarget) -> None:
    handler = configured(Notify, urls=json_url(target), title="{{ caller }}", body="{{ called }}")
    event = sample_event("missed-call")
    deliver(handler, event)
    sent = target.requests[0].json()
    assert handler.preview(event) == f"{sent['title']}\n{sent['message']}"
    assert "nothing" in configured(Notify, urls=json_url(target), body="").preview(event)


def test_trouble_is_sent_as_a_sentence(target: HttpTarget) -> None:
    handler = configured(Notify, urls=json_url(target))
    for event in sample_events("trouble"):
        deliver(handler, event)
    sent = [each.json() for each in target.requests]
    assert [each["title"] for each in sent] == list(TROUBLE)
    assert sent[0]["message"] == "Deliveries to crm keep failing: its circuit is open."
    assert sent[1]["message"] == "crm takes deliveries again, after 13 min."
