"""The output of `offhook dead`. `test_dead_letters.py` tests its effects."""

import json
from collections.abc import Iterator
from datetime import datetime

import pytest
import redis

from offhook import CallEvent, EventType, queues
from offhook.event import from_stored
from offhook.inbox import keys, partition_of
from offhook.settings import load_settings
from tests.conftest import Configure
from tests.events import event
from tests.offhook_cli.conftest import Offhook

ANSWERED, HUNG_UP, OTHER = (
    event("call-1", 1),
    event("call-1", 2, type=EventType.HANGUP),
    event("call-2", 3, extension="0003*299"),
)
ESCAPE = "\x1b[31m"


def letter_id(one: CallEvent, handler: str = "crm") -> str:
    return queues.dead_letter_id(handler, one.id)


@pytest.fixture
def rq(redis_url: str, configure: Configure) -> Iterator[redis.Redis]:
    """Three dead letters of the handler `crm`."""
    configure('[handlers.crm]\nuse = "console"\n')
    with redis.Redis.from_url(redis_url) as rq:
        for each in (ANSWERED, HUNG_UP, OTHER):
            bury(rq, each)
        yield rq


def bury(rq: redis.Redis, one: CallEvent, handler: str = "crm") -> None:
    queues.bury(rq, handler, one, attempt=3, error=f"answered [b]410{ESCAPE}", trace="Trace:\n  x")


def listed(offhook: Offhook) -> list[str]:
    return [letter["id"] for letter in json.loads(offhook("dead", "list", "--json").stdout)]


def test_list_shows_event_and_error(rq: redis.Redis, offhook: Offhook) -> None:
    lines = offhook("dead", "list", "--extension", "0003*299").stdout.splitlines()
    assert lines[:2] == [letter_id(OTHER), "  dial-in of 0003*299, call main/call-2"]
    assert lines[2].startswith("  answered [b]410\N{REPLACEMENT CHARACTER}[31m (3 attempts, died ")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 3),
        (["--handler", "crm"], 3),
        (["--limit", "2"], 2),
        (["--call", "call-1"], 2),
        (["--type", "hangup"], 1),
        (["--since", "1h"], 3),
        (["--call", "call-1", "--type", "dial-in"], 1),
    ],
)
def test_options_filter_the_list(
    rq: redis.Redis, offhook: Offhook, options: list[str], expected: int
) -> None:
    result = offhook("dead", "list", "--json", *options)
    assert len(json.loads(result.stdout)) == expected


def test_json_list_has_the_whole_event(rq: redis.Redis, offhook: Offhook) -> None:
    [letter] = json.loads(offhook("dead", "list", "--json", "--call", "call-2").stdout)
    assert letter["event"] == OTHER.as_dict()
    assert letter["error"] == f"answered [b]410{ESCAPE}"
    assert datetime.fromisoformat(letter["died"]).tzinfo is not None


def test_empty_list_is_reported_on_stderr(configure: Configure, offhook: Offhook) -> None:
    configure()
    result = offhook("dead", "list")
    assert (result.stdout, result.stderr) == ("", "No dead letters.\n")
    assert offhook("dead", "list", "--json").stdout == "[]\n"


def test_traceback_is_shown_only_for_unexpected_errors(rq: redis.Redis, offhook: Offhook) -> None:
    for n, reason in enumerate(("offhook.errors.PermanentError: gone", "KeyError: 'x'")):
        trace = f"Traceback (most recent call last):\n  File ...\n{reason}\n"
        queues.bury(rq, "crm", event(n=n), attempt=1, error=reason, trace=trace)
    *_, expected, bug = json.loads(offhook("dead", "list", "--json").stdout)
    assert "Traceback" not in offhook("dead", "show", expected["id"]).stdout
    assert "Traceback" in offhook("dead", "show", bug["id"]).stdout
    as_json = json.loads(offhook("dead", "show", expected["id"], "--json").stdout)
    assert "Traceback" in as_json["traceback"]


def test_show_prints_event_and_traceback(rq: redis.Redis, offhook: Offhook) -> None:
    shown = offhook("dead", "show", letter_id(HUNG_UP)).stdout
    assert "CallID:           call-1\n" in shown
    assert shown.endswith("\n\nTrace:\n  x\n")
    assert ESCAPE not in shown
    letter = json.loads(offhook("dead", "show", letter_id(HUNG_UP), "--json").stdout)
    assert letter["traceback"] == "Trace:\n  x"


def test_unknown_id_is_reported_and_changes_nothing(rq: redis.Redis, offhook: Offhook) -> None:
    for command in ("show", "retry", "discard"):
        arguments = ["crm-0"] if command == "show" else [letter_id(OTHER), "crm-0", "--yes"]
        result = offhook("dead", command, *arguments)
        assert result.exit_code == 1
        assert result.stderr == "There is no dead letter crm-0: see `offhook dead list`.\n"
    assert len(listed(offhook)) == 3


def test_retry_asks_for_confirmation(rq: redis.Redis, offhook: Offhook) -> None:
    result = offhook("dead", "retry", "--call", "call-1", input="n\n")
    assert result.exit_code == 1
    assert "Retry 2 dead letters? [y/N]" in result.stderr
    assert len(listed(offhook)) == 3


def test_retry_redelivers_in_order(rq: redis.Redis, offhook: Offhook) -> None:
    result = offhook("dead", "retry", "--call", "call-1", input="y\n")
    assert result.exit_code == 0
    assert result.stdout.endswith("Retried 2 dead letters.\n")
    assert listed(offhook) == [letter_id(OTHER)]
    partition = partition_of(ANSWERED, load_settings().partitions)
    lane = rq.lrange(keys.lane(partition, "crm", "main/call-1"), 0, -1)
    expected = sorted((ANSWERED, HUNG_UP), key=lambda each: each.id)
    assert [from_stored(each) for each in lane] == expected


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_selecting_all_needs_all_option(command: str, rq: redis.Redis, offhook: Offhook) -> None:
    result = offhook("dead", command, "--yes")
    assert result.exit_code == 2
    assert "--all" in result.stderr
    assert offhook("dead", command, letter_id(OTHER), "--call", "call-1", "--yes").exit_code == 2
    assert len(listed(offhook)) == 3
    assert offhook("dead", command, "--all", "--yes").exit_code == 0
    assert listed(offhook) == []


def test_retry_refuses_unconfigured_handler(rq: redis.Redis, offhook: Offhook) -> None:
    bury(rq, event("call-9"), handler="gone")
    result = offhook("dead", "retry", "--all", "--yes")
    assert result.exit_code == 1
    assert result.stderr == "gone: no longer configured, so nothing can be delivered.\n"
    assert len(listed(offhook)) == 4
    assert offhook("dead", "discard", "--handler", "gone", "--yes").exit_code == 0


def test_discard_asks_and_deletes(rq: redis.Redis, offhook: Offhook) -> None:
    refused = offhook("dead", "discard", letter_id(OTHER), input="\n")
    assert "Delete 1 dead letter for good? [y/N]" in refused.stderr
    assert letter_id(OTHER) in listed(offhook)
    result = offhook("dead", "discard", letter_id(OTHER), input="y\n")
    assert result.stdout.endswith("Deleted 1 dead letter.\n")
    assert letter_id(OTHER) not in listed(offhook)
    assert rq.keys("offhook:*") == []


def test_filter_without_matches_succeeds(rq: redis.Redis, offhook: Offhook) -> None:
    result = offhook("dead", "retry", "--call", "none", "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No dead letters.\n")


@pytest.mark.parametrize("command", ["list", "retry", "discard"])
def test_an_unknown_handler_is_an_error(command: str, rq: redis.Redis, offhook: Offhook) -> None:
    bury(rq, event("call-9"), handler="gone")
    result = offhook("dead", command, "--handler", "nope")
    assert result.exit_code == 2
    assert result.stderr == "there is no handler 'nope'; known: crm, gone\n"


def test_a_long_list_is_cut_and_says_so(rq: redis.Redis, offhook: Offhook) -> None:
    result = offhook("dead", "list", "--limit", "2")
    assert len(result.stdout.splitlines()) == 6
    last = json.loads(offhook("dead", "list", "--limit", "2", "--json").stdout)[-1]["id"]
    assert result.stderr.endswith(f"More than 2: the next ones come with --after {last}\n")
    assert offhook("dead", "list", "--limit", "3").stderr == ""


def test_a_long_list_is_read_page_by_page(rq: redis.Redis, offhook: Offhook) -> None:
    for handler in ("crm-2", "a"):  # names that another one begins with, and before it
        for each in (ANSWERED, HUNG_UP, OTHER):
            bury(rq, each, handler)
    every, after = listed(offhook), ""
    assert len(every) == 9
    for at in range(0, 9, 2):
        arguments = ("--after", after) if after else ()
        page = json.loads(offhook("dead", "list", "--json", "--limit", "2", *arguments).stdout)
        assert [each["id"] for each in page] == every[at : at + 2]
        after = page[-1]["id"]
        offhook("dead", "discard", after, "--yes")  # the next page begins there all the same
    assert offhook("dead", "list", "--after", every[-1]).stderr == "No dead letters.\n"
