"""The audit log: every change has words, and entries of other versions are read."""

import re

import msgspec

from offhook.connection import connect
from offhook.inbox import keys
from offhook.operations.audit import SENTENCES, Change, changes, note_change


def test_every_change_has_a_sentence() -> None:
    assert set(SENTENCES) == set(Change)
    for forms in SENTENCES.values():
        named = [set(re.findall(r"{(\w+)}", form)) for form in forms]
        assert len(forms) == (2 if "number" in named[0] else 1), forms
        assert named[0] == named[-1], forms


async def test_an_entry_is_a_sentence_and_a_word_with_details(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        for number in (1, 4021):
            details = {"number": number, "done": 0}
            await note_change(redis, "ruth", Change.RETRY_ASKED, details, operation="op")
        hostile = {"name": "{by} {0.__class__} <b>", "id": "5f1c"}
        await note_change(redis, "tom", Change.WALL_LINK_MADE, hostile)
        made, many, one = await changes(redis)
    assert one.did == "asked to retry 1 dead letter"
    assert many.did == "asked to retry 4,021 dead letters"
    assert (many.change, many.details["number"], many.operation) == ("retry-asked", 4021, "op")
    assert made.did == "made the wall link “{by} {0.__class__} <b>” (5f1c)"


async def test_entries_of_other_versions_are_read(redis_url: str) -> None:
    earlier = {"at": "2026-11-01T12:00:00Z", "by": "ruth", "did": "paused crm"}
    later = earlier | {"change": "moon-moved", "details": {"far": "yes"}, "more": {"x": [1]}}
    async with connect(redis_url) as redis:
        for entry in (earlier, later):
            await redis.xadd(keys.audit(""), {"e": msgspec.json.encode(entry)})
        found = await changes(redis)
    assert [each.did for each in found] == ["paused crm"] * 2
    assert [each.change for each in found] == ["moon-moved", None]
