"""Lookups: finding and configuring one, and asking it once."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from offhook import Context, Lookup, Number, TemporaryError
from offhook.errors import ConfigError
from offhook.plugins import installed, load_lookup, plug_lookup
from offhook.settings import LookupSettings, load_settings
from offhook.testing import LocalMemory, configured, look_up
from tests.conftest import Configure
from tests.offhook.lookups import Slow

HERE = "tests.offhook.test_lookup"


@dataclass(frozen=True)
class Echo(Lookup):
    """Return a greeting, on the event loop."""

    greeting: Annotated[str, Field(min_length=1, description="what comes before")]

    async def name_of(self, number: Number, context: Context) -> str | None:
        await asyncio.sleep(0)
        return f"{self.greeting} {number.e164}"


@dataclass(frozen=True)
class InThread(Lookup):
    """Return the number, in a thread."""

    remember: ClassVar[float] = 60.0

    def name_of(self, number: Number, context: Context) -> str | None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return number.national


@dataclass(frozen=True)
class Answers(Lookup):
    """Return or raise the option."""

    answer: Any = None

    async def name_of(self, number: Number, context: Context) -> str | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: str | None = self.answer
        return answer


@dataclass(frozen=True)
class Counts(Lookup):
    """Count the questions in its memory."""

    async def name_of(self, number: Number, context: Context) -> str | None:
        before = int(await context.memory.get("times") or 0)
        await context.memory.set("times", str(before + 1), 60)
        assert (context.handler, context.attempt) == ("lookups.test", 1)
        assert context.event.caller.number == number.text
        return str(before + 1)


@dataclass(frozen=True)
class Stops(Lookup):
    """Raise the one exception that a thread cannot pass to asyncio."""

    def name_of(self, number: Number, context: Context) -> str | None:
        raise StopIteration


class NoDataclass(Lookup):
    async def name_of(self, number: Number, context: Context) -> str | None:
        return None


@dataclass(frozen=True)
class Unfinished(Lookup):
    pass


def test_the_fields_of_a_lookup_are_its_options() -> None:
    plugged = plug_lookup("echo", LookupSettings(use=f"{HERE}:Echo", options={"greeting": "Hi"}))
    assert plugged.lookup == Echo("Hi")
    with pytest.raises(ConfigError) as wrong:
        plug_lookup(
            "echo", LookupSettings(use=f"{HERE}:Echo", options={"greeting": "", "colour": "red"})
        )
    first, second = wrong.value.problems
    assert first.startswith("lookups.echo.options.greeting: ")
    assert second == "lookups.echo.options.colour: there is no such option"


def test_an_option_may_be_in_a_file(tmp_path: Any) -> None:
    (tmp_path / "greeting").write_text("Hello\n")
    assert configured(Echo, greeting_file=str(tmp_path / "greeting")) == Echo("Hello")


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        ("sms", "no lookup is called 'sms': installed are bottlecrm, csv, "),
        ("no_such_module:Lookup", "'no_such_module:Lookup' cannot be imported: "),
        (f"{HERE}:Nothing", f"'{HERE}:Nothing' cannot be loaded: "),
        *(
            (f"{HERE}:{name}", f"'{HERE}:{name}' must be a dataclass that inherits from offhook.L")
            for name in ("NoDataclass", "Unfinished", "HERE", "Field")
        ),
        ("workers.handlers.console:Console", "'workers.handlers.console:Console' must be a "),
    ],
)
def test_a_wrong_lookup_is_reported_with_its_key(use: str, problem: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        plug_lookup("mine", LookupSettings(use=use))
    assert wrong.value.problems[0].startswith(f"lookups.mine.use: {problem}")


def test_built_in_lookups_are_found_by_name() -> None:
    assert {"csv", "sql", "hubspot"} <= set(installed("lookups"))
    assert all(issubclass(load_lookup(name), Lookup) for name in installed("lookups"))


def test_the_order_of_the_file_is_kept(configure: Configure) -> None:
    configure("".join(f'[lookups.{name}]\nuse = "csv"\n' for name in ("z", "a", "m")))
    assert list(load_settings().lookups) == ["z", "a", "m"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("[lookups.Staff]\nuse = 'csv'", "lookups.Staff: must be named with lower-case"),
        ("[lookups.staff]\nuse = 'csv'\ntimeout = 0", "lookups.staff.timeout: "),
        ("[lookups.staff]\nuse = 'csv'\ntimeout = 60", "lookups.staff.timeout: "),
        ("[lookups.staff]\nuse = 'csv'\nlifetime = -1", "lookups.staff.lifetime: "),
        ("[lookups.staff]\nuze = 'csv'", "lookups.staff.use: "),
    ],
)
def test_a_wrong_table_is_reported_with_its_key(
    table: str, problem: str, configure: Configure
) -> None:
    configure(table)
    with pytest.raises(ConfigError) as wrong:
        load_settings()
    assert wrong.value.problems[0].startswith(problem)


def test_the_lifetime_is_in_the_table_or_the_lookup() -> None:
    use = f"{HERE}:InThread"
    assert plug_lookup("a", LookupSettings(use=use)).lifetime == 60
    assert plug_lookup("a", LookupSettings(use=use, lifetime=0)).lifetime == 0
    assert plug_lookup("a", LookupSettings(use=f"{HERE}:Counts")).lifetime == 300


def test_a_lookup_runs_on_the_event_loop_or_in_a_thread() -> None:
    assert look_up(Echo("Hi"), "0211234567", region="RO") == "Hi +40211234567"
    assert look_up(InThread(), "0211234567", region="RO") == "211234567"


def test_a_name_is_one_short_line() -> None:
    for answer, name in (
        (None, None),
        ("", None),
        (" \n", None),
        ("Jane", "Jane"),
        (" Jane\r\n Doe\t", "Jane Doe"),
        ("x" * 500, "x" * 200),
    ):
        assert look_up(Answers(answer), "+40211234567") == name


def test_a_name_that_is_not_a_text_is_an_error() -> None:
    with pytest.raises(TypeError, match="returned list, which is neither a text nor None"):
        look_up(Answers(["Jane"]), "+40211234567")


def test_a_lookups_error_is_raised() -> None:
    for error in (ValueError("no"), TimeoutError("its own")):
        with pytest.raises(type(error), match=str(error)):
            look_up(Answers(error), "+40211234567")
    with pytest.raises(RuntimeError, match="StopIteration"):
        look_up(Stops(), "+40211234567")


def test_a_lookup_timeout_is_a_temporary_error() -> None:
    began = time.monotonic()
    with pytest.raises(TemporaryError, match=r"did not answer within 0\.1 s"):
        look_up(Slow(), "+40211234567", timeout=0.1)
    assert time.monotonic() - began < 30


def test_a_lookup_has_a_memory_and_the_event() -> None:
    memory = LocalMemory()
    assert [look_up(Counts(), "+40211234567", memory=memory) for _ in "ab"] == ["1", "2"]
