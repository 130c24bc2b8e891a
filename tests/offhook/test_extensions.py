"""The settings of extensions: in Redis, for handlers, and in files."""

import asyncio
from collections.abc import AsyncIterator, Sequence, Set
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from offhook import Context, EventType, ExtensionSettings
from offhook.call import Kind
from offhook.connection import connect
from offhook.errors import ConfigError
from offhook.event import CALLBACKS
from offhook.extensions import (
    AT_ONCE,
    CHANGES_KEPT,
    UNKNOWN,
    Extensions,
    ExtensionsCopy,
    Name,
)
from offhook.inbox.keys import EXTENSION_CHANGES, EXTENSIONS
from offhook.plugins import PluggedHandler
from offhook.provisioning.files import (
    check_extension,
    read_csv,
    read_events,
    read_handlers,
    read_toml,
    to_toml,
)
from offhook.settings import HandlerSettings
from offhook.testing import context, deliver, sample_event
from tests.events import event

JANE = ExtensionSettings(
    label="Front desk",
    owner="jane",
    handlers=("crm",),
    events=(EventType.DIAL_IN, EventType.HANGUP),
    method="GET",
    kind=Kind.PHONE,
    user="12",
)
JOE = ExtensionSettings(owner="joe")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        await client.config_resetstat()
        yield client


# In Redis


async def test_settings_are_stored_per_extension(redis: Redis) -> None:
    extensions = Extensions(redis)
    await extensions.change({("main", "0003*210"): JANE, ("branch", "0003*210"): JOE})
    here, there, absent = ("main", "0003*210"), ("branch", "0003*210"), ("main", "0003*211")
    assert await extensions.read([here, there, absent]) == {here: JANE, there: JOE}
    assert list(await extensions.all()) == [there, here]
    await extensions.change({absent: JOE}, [here])
    assert await extensions.all() == {there: JOE, absent: JOE}
    assert await extensions.names() == {there, absent}


async def test_many_settings_are_written_and_read_in_steps(redis: Redis) -> None:
    extensions = Extensions(redis)
    many = {("main", f"0003*{n}"): JOE for n in range(2 * AT_ONCE + 1)}
    await extensions.change(many)
    assert await calls_of(redis, "hset") == 3
    assert await extensions.all() == many
    await extensions.change({}, many)
    assert await extensions.all() == {}
    assert await calls_of(redis, "hgetall") == 0


async def calls_of(redis: Redis, command: str) -> int:
    found = (await redis.info("commandstats")).get(f"cmdstat_{command}", {"calls": 0})
    return int(found["calls"])


async def load(copy: ExtensionsCopy, *numbers: str) -> None:
    await copy.load(("main", f"0003*{number}") for number in numbers)


async def refresh(copy: ExtensionsCopy) -> set[Name] | None:
    """Follow the changes; return the extensions that were reported."""
    reported: list[Set[Name] | None] = []
    await copy.refresh(reported.append)
    return None if None in reported else set[Name]().union(*filter(None, reported))


async def test_a_copy_reads_what_is_named_and_what_has_changed(redis: Redis) -> None:
    extensions = Extensions(redis)
    await extensions.change({("main", f"0003*{number}"): JOE for number in (210, 211)})
    copy = ExtensionsCopy(extensions)
    assert await refresh(copy) == set()
    await load(copy, "210", "299")
    for _ in range(10):
        await load(copy, "210", "299")
        assert await refresh(copy) == set()
    assert await calls_of(redis, "hmget") == 1
    assert (copy.get("main", "0003*210"), copy.get("main", "0003*299")) == (JOE, UNKNOWN)
    assert ("main", "0003*210") in copy
    assert ("main", "0003*299") not in copy
    new = {("main", "0003*299"), ("main", "0003*300")}
    await extensions.change(dict.fromkeys(new, JANE), [("main", "0003*210")])
    assert await refresh(copy) == new | {("main", "0003*210")}
    assert (copy.get("main", "0003*210"), copy.get("main", "0003*299")) == (UNKNOWN, JANE)
    assert ("main", "0003*210") not in copy
    assert await calls_of(redis, "hmget") == 2
    assert copy.get("main", "0003*300") == UNKNOWN  # not named by an event, so not read


async def test_what_is_wanted_during_a_read_is_read_at_once(redis: Redis) -> None:
    copy = ExtensionsCopy(Extensions(redis))
    numbers = [str(number) for number in range(300, 350)]
    await asyncio.gather(load(copy, "210"), *(load(copy, "210", each) for each in numbers))
    first = await calls_of(redis, "hmget")
    assert first <= 2
    loading = [asyncio.create_task(load(copy, f"9{each}")) for each in numbers]
    await asyncio.sleep(0)
    loading[0].cancel()  # the others do not depend on it
    await asyncio.gather(*loading, return_exceptions=True)
    assert [task.cancelled() for task in loading] == [True] + [False] * 49
    assert await calls_of(redis, "hmget") == first + 1
    assert not copy._missing(("main", f"0003*9{each}") for each in numbers)


@pytest.mark.parametrize("lost", [True, False])
async def test_a_copy_that_has_fallen_behind_reads_again_what_it_has(
    redis: Redis, *, lost: bool
) -> None:
    extensions = Extensions(redis)
    await extensions.change({("main", "0003*211"): JOE})
    copy = ExtensionsCopy(extensions)
    numbers = [str(number) for number in range(1000, 1000 + 2 * AT_ONCE)]
    await load(copy, *numbers)
    assert await refresh(copy) == set()
    before = await calls_of(redis, "hmget")
    if lost:
        await redis.delete(EXTENSION_CHANGES)
    for n in range(1 if lost else CHANGES_KEPT + 1):
        await extensions.change({("main", f"0003*{numbers[-1 - n]}"): JANE})
    assert await refresh(copy) is None
    assert copy.get("main", f"0003*{numbers[-1]}") == JANE
    assert await calls_of(redis, "hmget") == before + 2
    assert await redis.xlen(EXTENSION_CHANGES) <= CHANGES_KEPT
    assert await refresh(copy) == set()


async def test_a_server_without_the_changes_is_noticed(redis: Redis) -> None:
    extensions = Extensions(redis)
    await extensions.change({("main", "0003*210"): JOE})
    copy = ExtensionsCopy(extensions)
    await load(copy, "210")
    await redis.flushdb()
    assert await refresh(copy) is None
    assert copy.get("main", "0003*210") == UNKNOWN
    assert await refresh(copy) == set()


async def test_a_change_while_settings_are_read_is_not_missed(redis: Redis) -> None:
    class Slow(Extensions):
        async def read(self, names: Sequence[Name]) -> dict[Name, ExtensionSettings]:
            found = await super().read(names)
            reading.set()
            await goes_on.wait()
            return found

    reading, goes_on = asyncio.Event(), asyncio.Event()
    copy = ExtensionsCopy(Slow(redis))
    loading = asyncio.create_task(load(copy, "210"))
    await reading.wait()
    await Extensions(redis).change({("main", "0003*210"): JANE})
    following = asyncio.create_task(refresh(copy))
    while await calls_of(redis, "xrange") == 0:
        await asyncio.sleep(0.001)
    goes_on.set()
    await loading
    await following
    assert copy.get("main", "0003*210") == JANE


async def test_extensions_that_do_not_exist_take_no_memory_without_bound(redis: Redis) -> None:
    await Extensions(redis).change({("main", "0003*210"): JANE})
    copy = ExtensionsCopy(Extensions(redis))
    await load(copy, "210")
    for start in range(0, 30_000, 5000):
        await load(copy, *(f"x{number}" for number in range(start, start + 5000)))
    assert len(copy._absent) <= 10_000
    assert copy.get("main", "0003*210") == JANE


async def test_phones_of_a_pbx_are_known_without_settings(redis: Redis) -> None:
    extensions = Extensions(redis)
    await extensions.add_phones("main", ["0003*211", "0003*210"])
    before = await extensions.last_change()
    await extensions.add_phones("main", ["0003*210", "0003*211"])
    assert await extensions.last_change() == before
    copy = ExtensionsCopy(extensions)
    await copy.load([("main", "0003*211"), ("other", "0003*211"), ("main", "0003*212")])
    assert ("main", "0003*211") in copy
    assert copy.get("main", "0003*211") == UNKNOWN
    assert ("other", "0003*211") not in copy
    assert await extensions.all() == {}
    await extensions.add_phones("main", ["0003*211", "0003*212"])
    assert await refresh(copy) == {("main", "0003*212")}
    assert ("main", "0003*212") in copy


async def test_an_empty_change_writes_nothing(redis: Redis) -> None:
    await Extensions(redis).change({}, [])
    assert not await redis.exists(EXTENSIONS)


async def test_unreadable_settings_do_not_affect_other_extensions(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    extensions = Extensions(redis)
    await extensions.change({("main", "0003*210"): JANE})
    await redis.hset(EXTENSIONS, "main/0003*211", "{not json")
    await redis.hset(EXTENSIONS, "main/0003*212", '{"owner": "joe", "colour": "red"}')
    assert await extensions.all() == {("main", "0003*210"): JANE, ("main", "0003*212"): JOE}
    assert await extensions.read([("main", "0003*211")]) == {}
    assert "the settings of 0003*211 on main cannot be read" in caplog.text


# For handlers


def test_an_extension_may_name_its_handlers() -> None:
    every = PluggedHandler.of("crm", HandlerSettings(use="x"), lambda event: None)
    settings = HandlerSettings(use="x", events=frozenset({EventType.HANGUP}))
    hangups = PluggedHandler.of("crm", settings, lambda event: None)
    for handlers, wanted in ((None, True), (("crm",), True), (("chat", "crm"), True), ((), False)):
        extension = ExtensionSettings(handlers=handlers)
        assert every.wants(event(), lambda *_, found=extension: found) is wanted
        assert not hangups.wants(event(), lambda *_, found=extension: found)


def test_plugin_authors_can_set_the_extension() -> None:
    owners: list[str | None] = []

    def handle(event: object, context: Context) -> None:
        owners.append(context.extension.owner)

    deliver(handle, sample_event(), extension=JANE)
    deliver(handle, sample_event())
    assert owners == ["jane", None]
    assert context(extension=JANE).extension.label == "Front desk"
    assert context().extension == UNKNOWN


# In files

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
settings = st.builds(
    ExtensionSettings,
    label=texts,
    owner=texts,
    handlers=st.none() | st.lists(st.sampled_from(["crm", "chat"]), unique=True).map(tuple),
    events=st.none()
    | st.sets(st.sampled_from(CALLBACKS)).map(
        lambda some: tuple(each for each in CALLBACKS if each in some)
    ),
    method=st.sampled_from(["GET", "POST"]),
    kind=st.none() | st.sampled_from(Kind),
    user=st.sampled_from([None, "@owner", "12"]),
)
names = st.tuples(st.sampled_from(["main", "Branch-2"]), st.sampled_from(["0003*210", "4*1"]))


@given(st.dictionaries(names, settings))
def test_a_written_file_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, extensions: dict[Name, ExtensionSettings]
) -> None:
    path = tmp_path_factory.mktemp("file") / "extensions.toml"
    path.write_text(to_toml(extensions), "utf-8", newline="")
    assert read_toml(path) == extensions


def test_a_table_of_extensions(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        'extension,events,label,kind\n0003*210,"dial-in, hangup",,Queue\n'
        ' 0003*211 ,all,"Desk, front",\n'
    )
    assert read_csv(path) == {
        "0003*210": {"kind": Kind.QUEUE, "events": (EventType.DIAL_IN, EventType.HANGUP)},
        "0003*211": {"events": CALLBACKS, "label": "Desk, front"},
    }


def test_every_fault_of_a_table_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "extension,events,kind\n210,hangup,\n0003*210,ring,\n0003*211,,\n0003*211,,\n1*2,a,b,c\n"
        "0003*212,,fax\n"
    )
    with pytest.raises(ConfigError) as raised:
        read_csv(path)
    assert [problem.removeprefix(f"{path}, ") for problem in raised.value.problems] == [
        "line 2: '210' is not an extension: write the extended number, such as 0003*210",
        "line 3: ring is not an event type: choose from dial-in, dial-out, hangup, answer-in, "
        "answer-out",
        "line 5: 0003*211 appears twice",
        "line 6: has more cells than columns: put quotes around a cell with commas",
        "line 7: fax is not a kind of extension: choose from phone, queue, ivr, conference",
    ]


@pytest.mark.parametrize("text", ["", "0003*210\n", "number,label\n", "extension,colour\n"])
def test_the_first_line_of_a_table_must_name_its_columns(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="the first line must name the columns"):
        read_csv(path)


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("extension,label\n0003*210,Büro\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_csv(path)


def test_cells_and_names_of_extensions() -> None:
    assert read_events("hangup; dial-in") == (EventType.DIAL_IN, EventType.HANGUP)
    assert read_handlers("crm, chat,crm") == ("crm", "chat")
    assert read_handlers("all") is None
    assert check_extension(" 0003*210 ") == "0003*210"
    for wrong in ("", "210", "@self", "0003*", "*210", "0003*2a", "٣*٢"):
        with pytest.raises(ConfigError):
            check_extension(wrong)
