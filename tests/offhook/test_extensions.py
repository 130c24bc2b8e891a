"""The settings of extensions: in Redis, for handlers, and in files."""

from collections.abc import AsyncIterator
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
from offhook.extensions import UNKNOWN, Extensions, ExtensionsCopy, Name
from offhook.inbox.keys import EXTENSIONS
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
        yield client


# In Redis


async def test_settings_are_stored_per_extension(redis: Redis) -> None:
    extensions = Extensions(redis)
    await extensions.change({("main", "0003*210"): JANE, ("branch", "0003*210"): JOE})
    assert await extensions.get("main", "0003*210") == JANE
    assert await extensions.get("branch", "0003*210") == JOE
    assert await extensions.get("main", "0003*211") == UNKNOWN
    assert list(await extensions.all()) == [("branch", "0003*210"), ("main", "0003*210")]
    await extensions.change({("main", "0003*211"): JOE}, [("main", "0003*210")])
    assert await extensions.all() == {("branch", "0003*210"): JOE, ("main", "0003*211"): JOE}


async def test_a_copy_reads_the_settings_only_after_a_change(redis: Redis) -> None:
    extensions = Extensions(redis)
    copy = ExtensionsCopy(extensions)
    await copy.refresh()
    assert copy.get("main", "0003*210") == UNKNOWN
    await extensions.change({("main", "0003*210"): JANE})
    await copy.refresh()
    assert copy.get("main", "0003*210") == JANE
    assert copy.get("branch", "0003*210") == UNKNOWN
    calls = (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"]
    for _ in range(10):
        await copy.refresh()
    assert (await redis.info("commandstats"))["cmdstat_hgetall"]["calls"] == calls
    await extensions.change({}, [("main", "0003*210")])
    await copy.refresh()
    assert copy.get("main", "0003*210") == UNKNOWN


async def test_phones_of_a_pbx_are_known_without_settings(redis: Redis) -> None:
    extensions = Extensions(redis)
    await extensions.add_phones("main", ["0003*211", "0003*210"])
    version = await extensions.version()
    await extensions.add_phones("main", ["0003*210", "0003*211"])
    assert await extensions.version() == version
    copy = ExtensionsCopy(extensions)
    await copy.refresh()
    assert ("main", "0003*211") in copy
    assert ("other", "0003*211") not in copy
    assert await extensions.all() == {}
    await extensions.add_phones("main", ["0003*212"])
    await copy.refresh()
    assert ("main", "0003*211") in copy
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
    assert await extensions.get("main", "0003*211") == UNKNOWN
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
