"""CRM handlers as lookups: promises of every one of them."""

import asyncio
from pathlib import Path

import pytest

from offhook import CallEvent, TemporaryError
from offhook.connection import connect
from offhook.plugins import installed, load_handler, load_lookup, plug_lookup
from offhook.settings import LookupSettings, load_settings
from offhook.testing import configured, look_up, sample_event
from tests.conftest import Configure
from tests.workers.handlers.crm.hubspot_side import HubSpotSide
from tests.workers.handlers.crm.side import Side
from workers.delivery.caller_names import naming
from workers.handlers.crm import Crm

JANE = "Jane Doe"


def test_every_crm_is_a_lookup_by_the_name_of_its_handler() -> None:
    crms = set()
    for name in installed("handlers"):
        found = load_handler(name)
        if isinstance(found, type) and issubclass(found, Crm):
            crms.add(name)
            assert name in installed("lookups"), (
                f"add {name} to [project.entry-points.'offhook.lookups']"
            )
            assert load_lookup(name) is found
    assert crms


def test_it_has_the_handlers_options(side: Side) -> None:
    use = f"{side.handler.__module__}:{side.handler.__name__}"
    side.add_contact(JANE, "+40211234567")
    plugged = plug_lookup("crm", LookupSettings(use=use, options=side.options()))
    assert plugged.lifetime == 300
    assert look_up(plugged.lookup, "+40211234567") == JANE


def test_it_finds_the_name_in_every_form_of_the_number(side: Side) -> None:
    for number, typed in enumerate(side.numbers_typed):
        side.add_contact(f"Jane {'abcdefghijkl'[number]}", typed)
        crm = configured(side.handler, **side.options())
        assert look_up(crm, "0211234567", region="RO") == f"Jane {'abcdefghijkl'[number]}", typed


def test_it_finds_no_other_number_and_writes_nothing(side: Side) -> None:
    side.add_contact("John", "+40211234568")
    side.lines()
    crm = configured(side.handler, **side.options(), unknown="create")
    assert look_up(crm, "+40211234567") is None
    assert list(side.contacts().values()) == ["John"]
    assert not side.records()


def test_of_several_contacts_it_returns_the_one_for_the_call(side: Side) -> None:
    for name in ("John Doe", JANE):
        side.add_contact(name, "+40211234567")
    for several in side.severals:
        crm = configured(side.handler, **side.options(), several=several)
        assert look_up(crm, "+40211234567") == (None if several == "none" else JANE)


def test_the_region_applies_to_the_crms_numbers(side: Side) -> None:
    side.add_contact(JANE, "021 123 4567")
    crm = configured(side.handler, **side.options(), region="RO")
    assert look_up(crm, "+44211234567") is None
    assert look_up(crm, "0211234567") == JANE


def test_denied_access_is_temporary(side: Side) -> None:
    crm = configured(side.handler, **side.wrong_options())
    with pytest.raises(TemporaryError, match="denies access"):
        look_up(crm, "+40211234567")


async def test_two_processes_search_once_for_a_whole_call(
    hubspot: HubSpotSide, configure: Configure, tmp_path: Path
) -> None:
    hubspot.add_contact("Jane of Acme", "021 123 4567")
    (tmp_path / "token").write_text(hubspot.options()["token"])
    configure(f"""
[lookups.crm]
use = "hubspot"
options.token_file = "{tmp_path}/token"
options.base_url = "{hubspot.url}"
""")
    settings = load_settings()
    types = ("dial-in", "call-started", "answer-in", "call-answered", "hangup", "call-ended")

    async def process() -> list[CallEvent]:
        client = connect(settings.redis_url)
        try:
            async with naming(settings, client) as of_tenant:
                names = of_tenant("")
                assert names is not None
                return [await names.named(sample_event(type_)) for type_ in types]
        finally:
            await client.aclose()

    for events in await asyncio.gather(process(), process()):
        assert {event.caller.name for event in events} == {"Jane of Acme"}
        summaries = [event.summary for event in events if event.summary]
        assert {call.caller.name for call in summaries} == {"Jane of Acme"}
    assert hubspot.lines() == [hubspot.find]
