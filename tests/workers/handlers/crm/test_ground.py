"""What the CRM handlers share, tested without a CRM."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from offhook import Call, Context, Party, PermanentError, TemporaryError
from offhook.http import Answer
from offhook.testing import configured, deliver, sample_call, sample_event
from tests.http_target import HttpTarget, http_target
from workers.handlers.crm import Access, Contact, Crm, CrmEntry, Number
from workers.handlers.crm.entry import outside_number

JANE = Number("+40211234567", "+40211234567")


@pytest.fixture
def target() -> Iterator[HttpTarget]:
    with http_target() as running:
        yield running


# The outside number


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (sample_call(), JANE),
        (sample_call(direction="internal"), None),
        (sample_call(caller=Party(number="anonymous")), None),
        (sample_call(caller=Party()), None),
        (sample_call(caller=Party(number="2345")), None),
        (sample_call(direction="out"), Number("+40318100210", "+40318100210")),
        (sample_call(caller=Party(number="0211234567")), Number("0211234567")),
    ],
)
def test_the_outside_number_depends_on_the_direction(call: Call, expected: Number | None) -> None:
    assert outside_number(call) == expected


def test_the_region_completes_a_national_number() -> None:
    call = sample_call(caller=Party(number="0211234567"))
    assert outside_number(call, "RO") == Number("0211234567", "+40211234567", "RO")


# The entry


def entry(call: Call, *contacts: Contact, recording: str | None = None) -> CrmEntry:
    return CrmEntry("main/1", call, JANE, contacts, recording=recording)


OUT: dict[str, Any] = {
    "direction": "out",
    "caller": Party(number="210", extension="0003*210"),
    "called": Party(number="0211234567"),
}


@pytest.mark.parametrize(
    ("call", "title"),
    [
        (sample_call(None), "Call from Jane Doe (+40211234567)"),
        (sample_call("answered"), "Call from Jane Doe (+40211234567)"),
        (sample_call("missed"), "Missed call from Jane Doe (+40211234567)"),
        (sample_call("busy"), "Missed call from Jane Doe (+40211234567) (busy)"),
        (sample_call("missed", caller=Party()), "Missed call from an unknown number"),
        (sample_call("answered", **OUT), "Call to 0211234567"),
        (sample_call("missed", **OUT), "Call to 0211234567 (no answer)"),
        (sample_call("cancelled", **OUT), "Call to 0211234567 (cancelled)"),
        (sample_call(None, **OUT), "Call to 0211234567"),
        (
            sample_call(direction="internal", caller=Party(number="211", name="Joe")),
            "Call from Joe (211) to +40318100210",
        ),
    ],
)
def test_a_title_names_the_party_and_the_outcome(call: Call, title: str) -> None:
    assert entry(call).title == title


def test_a_title_names_the_contact() -> None:
    john, joan = Contact("1", name="John"), Contact("2", name="Joan")
    assert entry(sample_call(), john).title == "Call from John (+40211234567)"
    assert entry(sample_call(), john, joan).title == "Call from Jane Doe (+40211234567)"
    assert entry(sample_call(), Contact("1")).title == "Call from Jane Doe (+40211234567)"


def test_the_facts_end_with_the_mark() -> None:
    assert entry(sample_call(), recording="http://x/1").facts == (
        "Called +40318100210",
        "Answered by 0003*210 after 8 s",
        "Talked for 45 s",
        "Recording: http://x/1",
        "Call main/1",
    )
    assert entry(sample_call(None)).facts == ("Called +40318100210", "Call main/1")
    assert entry(sample_call(**OUT)).facts[0] == "By 0003*210, answered after 8 s"
    assert entry(sample_call(ring_seconds=None, talk_seconds=None)).facts == (
        "Called +40318100210",
        "Answered by 0003*210",
        "Talk time unknown",
        "Call main/1",
    )
    assert entry(sample_call("missed", **OUT)).facts == ("Rang for 20 s", "Call main/1")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("Call main/1", True),
        ("notes\nCall main/1\nmore", True),
        ("<p>Call main/1</p>", True),
        ("Call main/10", False),
        ("Call main/1.5", False),
        ("Call main/1-5", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_whole_mark_counts(text: str | None, marked: bool) -> None:
    assert entry(sample_call()).is_marked(text) is marked


# Access


@dataclass(frozen=True, kw_only=True)
class Tokens(Crm):
    """A CRM whose tokens expire."""

    name: ClassVar[str] = "Tokens"
    url: str
    seconds: float | None = 3600.0
    given: list[str] = field(default_factory=list)

    async def sign_in(self, context: Context) -> Access:
        self.given.append(f"token {len(self.given) + 1}")
        return Access(self.url, {"Authorization": self.given[-1]}, self.seconds)

    async def find(self, number: Number, context: Context) -> list[Contact]:
        await self.request(context, "GET", "/find")
        return []

    async def create(self, number: Number, entry: CrmEntry, context: Context) -> Contact:
        raise NotImplementedError

    async def save(self, entry: CrmEntry, context: Context) -> None:
        await self.request(context, "POST", "/save", headers={"X-More": "1"})


def tokens(target: HttpTarget, **options: Any) -> Tokens:
    return configured(Tokens, url=target.url, **options)


def used(target: HttpTarget) -> list[str]:
    return [request.headers["authorization"] for request in target.requests]


def test_a_valid_token_is_reused(target: HttpTarget) -> None:
    crm = tokens(target)
    deliver(crm, sample_event("call-ended"))
    assert used(target) == ["token 1", "token 1"]
    assert target.requests[1].headers["x-more"] == "1"


def test_a_token_is_renewed_before_it_expires(target: HttpTarget) -> None:
    deliver(tokens(target, seconds=60.0), sample_event("call-ended"))
    assert used(target) == ["token 1", "token 2"]


def test_a_refused_token_is_renewed_once(target: HttpTarget) -> None:
    target.plan(401)
    deliver(tokens(target), sample_event("call-ended"))
    assert used(target) == ["token 1", "token 2", "token 2"]


def test_refused_credentials_are_temporary(target: HttpTarget) -> None:
    target.plan(401)
    target.plan(401)
    with pytest.raises(TemporaryError, match=r"Tokens denies access \(401\)"):
        deliver(tokens(target), sample_event("call-ended"))
    assert used(target) == ["token 1", "token 2"]


def test_a_permanent_token_is_not_renewed(target: HttpTarget) -> None:
    target.plan(401)
    with pytest.raises(TemporaryError):
        deliver(tokens(target, seconds=None), sample_event("call-ended"))
    assert used(target) == ["token 1"]


@dataclass(frozen=True, kw_only=True)
class Quoting(Tokens):
    """A CRM that says what it refuses."""

    name: ClassVar[str] = "Quoting"

    def said(self, answer: Answer) -> str:
        return answer.text


@pytest.mark.parametrize("number", ["+40211234567", "021 123 45 67", "0040 21 123-4567"])
@pytest.mark.parametrize("status", [400, 403, 503])
def test_an_error_does_not_say_who_called(target: HttpTarget, number: str, status: int) -> None:
    target.plan(status, body=f"Jane Doe: {number} is no phone, see 12345678-90".encode())
    with pytest.raises((PermanentError, TemporaryError)) as refused:
        deliver(configured(Quoting, url=target.url), sample_event("call-ended"))
    assert "***: *** is no phone, see 12345678-90" in str(refused.value)
    assert "Jane" not in str(refused.value)


def test_the_repr_of_access_shows_no_secret() -> None:
    assert "hush" not in repr(Access("https://x", {"Authorization": "hush"}))
