"""`offhook calls` and `offhook call`."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest

from offhook.dialects import telphin
from tests.conftest import Configure
from tests.events import batch_of
from tests.offhook.sandbox import sandbox
from tests.offhook_cli.conftest import Offhook
from tests.workers.reconcile.reconciling import Bench, configuration
from unifiedapi.sandbox.scenarios import ScriptedCall as PlacedCall


@pytest.fixture
def bench(redis_url: str, configure: Configure) -> Iterator[Bench]:
    with sandbox() as pbx:
        configure(configuration(pbx))
        made = Bench(pbx, redis_url)
        yield made
        made.redis.close()


@pytest.fixture
def placed(bench: Bench) -> dict[str, PlacedCall]:
    """An answered, a missed and a live call, and a missed call from two days ago."""
    made = {
        "answered": bench.place("answered", seed=1, ago=timedelta(hours=3)),
        "missed": bench.place("missed", seed=2, ago=timedelta(hours=2)),
        "live": bench.place("answered", "hangup", seed=3, ago=timedelta(minutes=5)),
        "old": bench.place("missed", seed=4, ago=timedelta(days=2)),
    }
    bench.keep()
    return made


def listed(offhook: Offhook, *options: str) -> list[str]:
    result = offhook("calls", "--json", *options)
    assert result.exit_code == 0, result.output
    return [call["id"] for call in json.loads(result.stdout)]


def test_calls_of_the_last_day_are_listed_newest_first(
    placed: dict[str, PlacedCall], offhook: Offhook
) -> None:
    newest_first = [placed[name].id for name in ("live", "missed", "answered")]
    assert listed(offhook) == newest_first
    shown = offhook("calls").stdout
    places = [shown.index(f"main/{each}") for each in newest_first]
    assert places == sorted(places)
    assert placed["old"].id not in shown


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--outcome", "missed"), ["missed"]),
        (("--outcome", "missed", "--since", "3d"), ["missed", "old"]),
        (("--live",), ["live"]),
        (("--since", "150m"), ["live", "missed"]),
        (("--limit", "1"), ["live"]),
        (("--before", "1h"), ["missed", "answered"]),
        (("--extension", "0003*999"), []),
    ],
)
def test_options_filter_the_list(
    options: tuple[str, ...], names: list[str], placed: dict[str, PlacedCall], offhook: Offhook
) -> None:
    assert listed(offhook, *options) == [placed[name].id for name in names]


def test_number_filter_matches_last_digits_of_caller_and_called(
    placed: dict[str, PlacedCall], offhook: Offhook
) -> None:
    [_, _, call] = json.loads(offhook("calls", "--json").stdout)
    for side in ("caller", "called"):
        number = call[side]["number"]
        assert call["id"] in listed(offhook, "--number", f"+{number[-7:-4]} {number[-4:]}")
    assert listed(offhook, "--number", "999999999") == []


def test_calls_are_found_by_name(placed: dict[str, PlacedCall], offhook: Offhook) -> None:
    [*_, call] = json.loads(offhook("calls", "--json").stdout)
    word = call["caller"]["name"].split()[-1]
    assert call["id"] in listed(offhook, "--name", word.upper())
    assert listed(offhook, "--name", f"{word}x") == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--number", "abc", "'abc' contains no digit"),
        ("--name", "*", "'*' contains no letter"),
        ("--before", "@1d", "'@1d' is not the end of a page"),
    ],
)
def test_values_that_select_nothing_are_refused(
    option: str, value: str, message: str, configure: Configure, offhook: Offhook
) -> None:
    configure()
    result = offhook("calls", option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"{option}: {message}\n"


def test_truncated_list_is_reported(placed: dict[str, PlacedCall], offhook: Offhook) -> None:
    more = offhook("calls", "--limit", "2").stderr
    assert "More than 2 calls match" in more
    assert listed(offhook, *more.split()[-2:]) == [placed["answered"].id]  # the next page
    assert offhook("calls", "--limit", "3").stderr == ""


def test_call_is_shown_with_legs_and_events(
    placed: dict[str, PlacedCall], offhook: Offhook
) -> None:
    for name in (f"main/{placed['answered'].id}", placed["answered"].id):
        result = offhook("call", name)
        assert result.exit_code == 0, result.output
        assert f"call:       main/{placed['answered'].id}\n" in result.stdout
        assert "outcome:    answered\n" in result.stdout
        for callback in placed["answered"].callbacks:
            assert f"  {callback.type.label:<9}  {callback.extension} " in result.stdout


def test_unknown_call_is_reported(placed: dict[str, PlacedCall], offhook: Offhook) -> None:
    result = offhook("call", "main/nonsense")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "offhook calls --since" in result.stderr


def test_calls_of_a_pbx_with_an_impossible_clock_are_shown(bench: Bench, offhook: Offhook) -> None:
    for number, time in enumerate(("253402300799999999", "-62135596800000000"), start=1):
        event = telphin.read_event(
            pbx="main",
            extension="0003*210",
            parameters={
                "CallID": f"impossible-{number}",
                "EventType": "dial-in",
                "CallFlow": "in",
                "EventTime": time,
            },
        )
        bench.run(lambda inbox, event=event: inbox.append(batch_of(event), 0))  # type: ignore[misc]
    bench.keep()
    assert listed(offhook) == ["impossible-2", "impossible-1"]
    assert "impossible-1" in offhook("calls").stdout
    assert offhook("call", "main/impossible-1").exit_code == 0
