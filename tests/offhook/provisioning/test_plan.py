"""The plan: from registered and wanted phone call events to changes."""

from collections import Counter
from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.call import Kind
from offhook.callback_url import callback_url, make_token
from offhook.event import CALLBACKS, EventType
from offhook.extensions import ExtensionSettings
from offhook.provisioning.plan import (
    Action,
    EventChange,
    Installation,
    Wanted,
    note,
    plan,
    usual_events,
    wanted,
)
from unifiedapi.resources import EventMethod, EventStatus, PhoneCallEvent
from unifiedapi.resources import EventType as PbxEventType

SECRET = "the present secret, which is long enough"
PREVIOUS = "the previous secret, also long enough"
FOREIGN = "the secret of another installation here"
HERE = "https://offhook.example.com"
EXTENSION = "0003*210"
US = Installation(HERE, [SECRET, PREVIOUS])

ids = count(1)


def registered(
    event_type: str = "hangup",
    *,
    secret: str = SECRET,
    base: str = HERE,
    pbx: str = "main",
    extension: str = EXTENSION,
    **fields: object,
) -> PhoneCallEvent:
    """A phone call event on the PBX."""
    values = {
        "type": PbxEventType[EventType(event_type).name],
        "id": str(next(ids)),
        "method": EventMethod.POST,
        "url": callback_url(base, secret, pbx, extension, event_type),
        "status": EventStatus.ENABLED,
        "note": "offhook:main",
    }
    return PhoneCallEvent(**(values | fields))  # type: ignore[arg-type]


def want(*event_types: str, method: str = "POST") -> list[Wanted]:
    events = tuple(map(EventType, event_types))
    return wanted(US, "main", EXTENSION, ExtensionSettings(events=events, method=method))


def words(changes: list[EventChange]) -> list[str]:
    return [
        " ".join([change.action, change.type.label, *change.differs, *_id(change)])
        for change in changes
    ]


def _id(change: EventChange) -> list[str]:
    return [change.registered.id] if change.registered else []


def test_a_missing_event_is_created() -> None:
    [change] = plan([], want("dial-in"))
    assert change.action is Action.CREATE
    assert change.wanted == Wanted(
        PbxEventType.DIAL_IN,
        f"{HERE}/callback/main/0003*210/dial-in/{make_token(SECRET, 'main', EXTENSION, 'dial-in')}",
        EventMethod.POST,
        "offhook:main",
    )


@pytest.mark.parametrize(
    ("there", "changes"),
    [
        ([registered(id="a")], ["leave hangup a"]),
        ([registered(id="a", secret=PREVIOUS)], ["update hangup url a"]),
        ([registered(id="a", base="https://old.example.com")], ["update hangup url a"]),
        ([registered(id="a", method=EventMethod.GET)], ["update hangup method a"]),
        ([registered(id="a", status=EventStatus.DISABLED)], ["enable hangup status a"]),
        (
            [registered(id="a", secret=PREVIOUS, status=EventStatus.DISABLED)],
            ["update hangup url status a"],
        ),
        ([registered(id="a", note="mine!")], ["leave hangup a"]),
        ([registered(id="a"), registered(id="b")], ["leave hangup a", "delete hangup b"]),
        (
            [registered(id="a", secret=PREVIOUS), registered(id="b")],
            ["leave hangup b", "delete hangup a"],
        ),
        (
            [registered(id="a", method=EventMethod.GET), registered(id="b", secret=PREVIOUS)],
            ["update hangup method a", "delete hangup b"],
        ),
        ([registered("dial-in", id="a")], ["create hangup", "delete dial-in a"]),
        # Its type differs from the one in the URL: the type on the PBX counts.
        (
            [registered("dial-in", id="a", type=PbxEventType.HANGUP)],
            ["update hangup url a"],
        ),
        ([registered(id="a", url=registered().url.replace("*", "%2A"))], ["leave hangup a"]),  # type: ignore[union-attr]
    ],
)
def test_a_registered_event_is_corrected(there: list[PhoneCallEvent], changes: list[str]) -> None:
    assert words(plan(there, want("hangup"))) == changes


def test_all_our_events_are_deleted_if_none_is_wanted() -> None:
    there = [registered(id="a"), registered("dial-in", id="b")]
    assert words(plan(there, [])) == ["delete hangup a", "delete dial-in b"]


# Not from a counter: Hypothesis must be able to build the same list again.
identifiers = st.integers(0, 10**9).map(str)
events = st.builds(
    registered,
    st.sampled_from(CALLBACKS),
    secret=st.sampled_from([SECRET, PREVIOUS, FOREIGN]),
    base=st.sampled_from([HERE, "http://old.example.com:8080/offhook", "https://crm.example.com"]),
    pbx=st.sampled_from(["main", "branch"]),
    extension=st.sampled_from([EXTENSION, "0003*211"]),
    type=st.sampled_from(list(PbxEventType)),
    method=st.sampled_from([*EventMethod, None]),
    status=st.sampled_from([*EventStatus, None]),
    note=st.sampled_from(["", "offhook:main", "the CRM's"]),
    id=identifiers,
)
strangers = st.builds(
    registered,
    st.sampled_from(CALLBACKS),
    id=identifiers,
    url=st.sampled_from([None, "", "https://crm.example.com/calls?x=/callback/main", "http://["]),
)
phone_call_events = st.lists(st.one_of(events, strangers), max_size=12, unique_by=lambda e: e.id)
wishes = st.sets(st.sampled_from(CALLBACKS)).map(lambda types: want(*sorted(types)))


def carried_out(changes: list[EventChange]) -> list[PhoneCallEvent]:
    """The events on the PBX after these changes."""
    there = []
    for change in changes:
        if change.action is Action.CREATE:
            assert change.wanted is not None
            made = PhoneCallEvent(
                type=change.wanted.type,
                id=f"new-{next(ids)}",
                method=change.wanted.method,
                url=change.wanted.url,
                status=EventStatus.ENABLED,
                note=change.wanted.note,
            )
            there.append(made)
        elif change.action is not Action.DELETE:
            assert change.registered is not None
            assert change.wanted is not None
            values = {
                "url": change.wanted.url,
                "method": change.wanted.method,
                "status": EventStatus.ENABLED,
            }
            changed = {name: values[name] for name in change.differs}
            there.append(msgspec.structs.replace(change.registered, **changed))
    return there


@given(phone_call_events, wishes)
def test_a_plan_leads_to_the_wanted_events_and_the_next_plan_is_empty(
    there: list[PhoneCallEvent], wanted: list[Wanted]
) -> None:
    ours = [event for event in there if US.owns(event, "main", EXTENSION)]
    changes = plan(ours, wanted)
    after = carried_out(changes)
    assert Counter((e.type, e.url, e.method, e.status) for e in after) == Counter(
        (w.type, w.url, w.method, EventStatus.ENABLED) for w in wanted
    )
    assert all(change.action is Action.LEAVE for change in plan(after, wanted))
    assert all(US.owns(event, "main", EXTENSION) for event in after)
    touched = [change.registered for change in changes if change.registered is not None]
    assert Counter(event.id for event in touched) == Counter(event.id for event in ours)


@given(phone_call_events, wishes)
def test_deleting_comes_last(there: list[PhoneCallEvent], wanted: list[Wanted]) -> None:
    actions = [change.action for change in plan(there, wanted)]
    assert actions == sorted(actions, key=list(Action).index)
    assert list(Action)[-1] is Action.DELETE


@pytest.mark.parametrize(
    ("event", "owned"),
    [
        (registered(), True),
        (registered(note="something of a person's"), True),
        (registered(secret=PREVIOUS), True),
        (registered(base="https://old.example.com"), True),
        (registered(base="http://10.0.0.7:8080/deep/down"), True),
        (registered(secret=FOREIGN), True),  # leads here: the secret was changed
        (registered(secret=FOREIGN, base=HERE.upper().replace("HTTPS", "https")), True),
        (registered(secret=FOREIGN, base="https://staging.example.com"), False),
        (registered(secret=FOREIGN, base=f"{HERE}.evil.example.com"), False),
        (registered(pbx="branch"), False),
        (registered(extension="0004*210"), False),
        (registered(url="https://crm.example.com/calls"), False),
        (registered(url=None), False),
    ],
)
def test_an_event_is_ours_by_its_token_or_by_its_host(event: PhoneCallEvent, owned: bool) -> None:
    assert US.owns(event, "main", EXTENSION) is owned


def test_an_event_of_another_installation_resembles_ours() -> None:
    assert US.resembles(registered(secret=FOREIGN, base="https://x.org"), "main", EXTENSION)
    assert US.resembles(registered(url="https://x.org", note=note("main")), "main", EXTENSION)
    assert not US.resembles(registered(url="https://x.org", note="CRM"), "main", EXTENSION)
    assert not US.resembles(registered(pbx="branch", note=""), "main", EXTENSION)


def test_phones_get_all_events_and_other_kinds_dial_in_and_hangup() -> None:
    assert usual_events(Kind.PHONE) == CALLBACKS
    for kind in set(Kind) - {Kind.PHONE}:
        assert usual_events(kind) == (EventType.DIAL_IN, EventType.HANGUP)


def test_the_repr_of_a_plan_contains_no_secret_and_no_url() -> None:
    [change] = plan([registered(secret=PREVIOUS)], want("hangup"))
    shown = repr(change) + repr(US)
    assert "callback" not in shown
    assert SECRET not in shown
