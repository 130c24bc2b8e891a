"""What `offhook setup` was told of extensions: kept, copied, and read from files."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
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
from offhook.extensions import KEY, UNKNOWN, Extensions, ExtensionsCopy, Name
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


def with_redis(url: str, go: Callable[[Redis], Awaitable[None]]) -> None:
    async def run() -> None:
        client = connect(url)
        try:
            await go(client)
        finally:
            await client.aclose()

    asyncio.run(run())


# Kept


def test_what_is_put_is_got(redis_url: str) -> None:
    async def go(redis: Redis) -> None:
        extensions = Extensions(redis)
        await extensions.change({("main", "0003*210"): JANE, ("branch", "0003*210"): JOE})
        assert await extensions.get("main", "0003*210") == JANE
        assert await extensions.get("branch", "0003*210") == JOE
        assert await extensions.get("main", "0003*211") == UNKNOWN
        assert list(await extensions.all()) == [("branch", "0003*210"), ("main", "0003*210")]
        await extensions.change({("main", "0003*211"): JOE}, [("main", "0003*210")])
        assert await extensions.all() == {("branch", "0003*210"): JOE, ("main", "0003*211"): JOE}

    with_redis(redis_url, go)


def test_a_copy_sees_every_change_and_asks_little_when_there_is_none(redis_url: str) -> None:
    async def go(redis: Redis) -> None:
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

    with_redis(redis_url, go)


def test_nothing_to_change_is_no_change(redis_url: str) -> None:
    async def go(redis: Redis) -> None:
        await Extensions(redis).change({}, [])
        assert not await redis.exists(KEY)

    with_redis(redis_url, go)


def test_what_cannot_be_read_harms_no_other(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def go(redis: Redis) -> None:
        extensions = Extensions(redis)
        await extensions.change({("main", "0003*210"): JANE})
        await redis.hset(KEY, "main/0003*211", "{not json")
        await redis.hset(KEY, "main/0003*212", '{"owner": "joe", "colour": "red"}')
        assert await extensions.all() == {("main", "0003*210"): JANE, ("main", "0003*212"): JOE}
        assert await extensions.get("main", "0003*211") == UNKNOWN

    with caplog.at_level(logging.ERROR):
        with_redis(redis_url, go)
    assert "the settings of 0003*211 on main cannot be read" in caplog.text


# For handlers


@pytest.mark.parametrize(
    ("handlers", "wanted"), [(None, True), (("crm",), True), (("chat", "crm"), True), ((), False)]
)
def test_a_handler_gets_events_of_extensions_that_name_it_or_none(
    handlers: tuple[str, ...] | None, wanted: bool
) -> None:
    plugged = PluggedHandler("crm", HandlerSettings(use="x"), lambda event, context: None, False)
    assert plugged.wants(event(), lambda *_: ExtensionSettings(handlers=handlers)) is wanted
    other = HandlerSettings(use="x", events=frozenset({EventType.HANGUP}))
    plugged = PluggedHandler.of("crm", other, lambda event: None)
    assert not plugged.wants(event(), lambda *_: ExtensionSettings(handlers=handlers))


def test_plugin_authors_can_say_what_is_known_of_the_extension() -> None:
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
def test_what_is_written_is_read_as_it_was(
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


def test_every_fault_of_a_table_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(
        "extension,events,kind\n210,hangup,\n0003*210,ring,\n0003*211,,\n0003*211,,\n1*2,a,b,c\n"
        "0003*212,,fax\n"
    )
    with pytest.raises(ConfigError) as raised:
        read_csv(path)
    assert [problem.removeprefix(f"{path}, ") for problem in raised.value.problems] == [
        "line 2: '210' is no extension: write it whole, such as 0003*210",
        "line 3: ring is no event type: there are dial-in, dial-out, hangup, answer-in, answer-out",
        "line 5: 0003*211 is there twice",
        "line 6: has more cells than columns: put quotes around a cell with commas",
        "line 7: fax is no kind: there are phone, queue, ivr, conference",
    ]


@pytest.mark.parametrize("text", ["", "0003*210\n", "number,label\n", "extension,colour\n"])
def test_a_table_begins_with_the_names_of_its_columns(text: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="the first line must name the columns"):
        read_csv(path)


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("extension,label\n0003*210,Büro\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_csv(path)


def test_words() -> None:
    assert read_events("hangup; dial-in") == (EventType.DIAL_IN, EventType.HANGUP)
    assert read_handlers("crm, chat,crm") == ("crm", "chat")
    assert read_handlers("all") is None
    assert check_extension(" 0003*210 ") == "0003*210"
    for wrong in ("", "210", "@self", "0003*", "*210", "0003*2a", "٣*٢"):
        with pytest.raises(ConfigError):
            check_extension(wrong)
