"""`offhook presence` and `offhook agents`, on a sandbox PBX."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Configure
from tests.offhook.sandbox import Sandbox, sandbox
from tests.offhook_cli.conftest import Offhook
from tests.unifiedapi.serving import Reply, Script, serve
from unifiedapi.resources import AgentStatus

QUEUE = "0003*400"


@pytest.fixture
def pbx() -> Iterator[Sandbox]:
    with sandbox() as running:
        yield running


@pytest.fixture(autouse=True)
def _configured(pbx: Sandbox, configure: Configure) -> None:
    configure(table("main", pbx))


def table(name: str, pbx: Sandbox) -> str:
    app = next(iter(pbx.store.apps.values()))
    return f"""
[pbx.{name}]
host = "{pbx.url}"
client_id = "{app.id}"
client_secret = "{app.secret}"
insecure = true
"""


def test_presence_lists_every_phone_of_the_user(offhook: Offhook) -> None:
    result = offhook("presence")
    assert result.exit_code == 0, result.output
    assert "0003*210" in result.stdout
    assert QUEUE not in result.stdout


def test_presence_of_one_extension_as_json(offhook: Offhook) -> None:
    [found] = json.loads(offhook("presence", "0003*210", "--json").stdout)
    assert found["extension"] == "0003*210"
    assert {"status", "phones"} <= found.keys()


def numbers(offhook: Offhook, *arguments: str) -> list[str]:
    result = offhook(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [each.get("extension") or each["agent"] for each in json.loads(result.stdout)]


def test_presence_takes_the_parameters_of_the_pbxs_lists(offhook: Offhook) -> None:
    by = ("presence", "--filter-by", "extension", "--filter-value")
    assert numbers(offhook, *by, "0003*210") == ["0003*210"]
    for op in ("startsWith", "starts with", "contains"):
        found = numbers(offhook, *by, "0003*21", "--filter-op", op)
        assert found == ["0003*210", "0003*211", "0003*212", "0003*213"]
    array = (*by, "0003*213", "--filter-value", "0003*211", "--filter-op", "inArray")
    assert numbers(offhook, *array) == ["0003*211", "0003*213"]
    assert numbers(offhook, *by[:3], "--filter-op", "present") == numbers(offhook, "presence")
    page = ("presence", "--sort-order", "desc", "--count", "2", "--start-index", "1")
    assert numbers(offhook, *page) == ["0003*212", "0003*211"]


def test_presence_shows_only_the_chosen_fields(offhook: Offhook) -> None:
    result = offhook("presence", "0003*210", "--fields", "extension, status", "--json")
    assert json.loads(result.stdout) == [{"extension": "0003*210", "status": "unknown"}]
    shown = offhook("presence", "0003*210", "--fields", "registration").stdout
    assert shown.split()[:4] == ["extension", "phone", "registration", "until"]
    wrong = offhook("presence", "--fields", "colour")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "fields_invalid" in wrong.stderr


def test_agents_take_the_parameters_of_the_pbxs_lists(offhook: Offhook) -> None:
    by = ("agents", QUEUE, "--filter-by", "status", "--filter-value", "1")
    assert numbers(offhook, *by) == ["0003*210"]
    assert len(numbers(offhook, "agents", QUEUE, "--count", "1", "--start-index", "2")) == 1
    chosen = ("--fields", "queue, identifier", "--sort-order", "asc", "--json")
    assert {tuple(each) for each in json.loads(offhook("agents", QUEUE, *chosen).stdout)} == {
        ("agent", "queue", "identifier")
    }
    assert offhook("agents", QUEUE, *chosen[:2]).stdout.split()[:3] == [
        "agent",
        "queue",
        "identifier",
    ]


def test_filter_without_its_field_is_refused(offhook: Offhook) -> None:
    for options in (("--filter-value", "1"), ("--filter-op", "equals")):
        result = offhook("presence", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "name the field with --filter-by\n"


def test_json_has_times_as_iso_8601(offhook: Offhook) -> None:
    [found] = json.loads(offhook("presence", "0003*210", "--json").stdout)
    assert found["phones"][0]["expire"] == "2011-02-10T15:10:55+00:00"


def test_list_shorter_than_its_count_is_shown_with_a_warning(
    offhook: Offhook, configure: Configure
) -> None:
    sample = {"startIndex": 0, "totalResults": 2, "entry": [{"extension": "0003*210"}]}
    with serve(Script(Reply(200, sample))) as url:  # always the same page
        configure(f'[pbx.main]\nhost = "{url}"\ntoken = "abcdefghij"\ninsecure = true\n')
        result = offhook("presence", "--json")
        assert result.exit_code == 0
        assert [each["extension"] for each in json.loads(result.stdout)] == ["0003*210"]
        warning = "! the PBX counts 2 entries, but sent 1: the list may be incomplete\n"
        assert result.stderr.endswith(warning)
        assert warning not in offhook("presence", "--count", "1").stderr


def test_refusal_of_the_pbx_is_one_sentence(offhook: Offhook) -> None:
    result = offhook("presence", "0003*999")
    assert result.exit_code == 1
    assert "the PBX refuses: " in result.stderr
    assert "Traceback" not in result.output


def test_agents_are_listed(offhook: Offhook, pbx: Sandbox) -> None:
    listed = json.loads(offhook("agents", QUEUE, "--json").stdout)
    expected = [agent.number for agent in pbx.store.extensions[QUEUE].agents]
    assert sorted(each["agent"] for each in listed) == sorted(expected)


@pytest.mark.parametrize(
    ("option", "status"),
    [
        ("--pause", AgentStatus.PAUSED),
        ("--logout", AgentStatus.LOGGED_OUT),
        ("--login", AgentStatus.ONLINE),
    ],
)
def test_option_sets_the_status_of_an_agent(
    offhook: Offhook, pbx: Sandbox, option: str, status: AgentStatus
) -> None:
    agent = pbx.store.extensions[QUEUE].agents[0]
    result = offhook("agents", QUEUE, agent.number, option)
    assert result.exit_code == 0, result.output
    assert pbx.store.extensions[QUEUE].agents[0].status == status


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((QUEUE, "--pause"), "name the agent"),
        ((QUEUE, "0003*210", "--pause", "--login"), "use only one of"),
    ],
)
def test_contradictory_options_are_refused(
    offhook: Offhook, arguments: tuple[str, ...], sentence: str
) -> None:
    result = offhook("agents", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_one_of_several_pbxs_must_be_named(
    offhook: Offhook, pbx: Sandbox, configure: Configure
) -> None:
    configure(table("main", pbx) + table("other", pbx))
    assert "choose a PBX with --pbx" in offhook("presence").stderr
    assert offhook("presence", "--pbx", "other").exit_code == 0
    assert "no PBX is configured as 'third'" in offhook("presence", "--pbx", "third").stderr


@pytest.mark.usefixtures("quick_retries")
def test_unreachable_pbx_is_one_sentence(offhook: Offhook, configure: Configure) -> None:
    configure('[pbx.main]\nhost = "https://127.0.0.1:1"\ntoken = "abcdefghij"\n')
    result = offhook("presence")
    assert result.exit_code == 1
    assert "127.0.0.1" in result.stderr
    assert "Traceback" not in result.output


def test_unsupported_api_is_reported(offhook: Offhook, configure: Configure) -> None:
    configure('[pbx.office]\ndialect = "telphin"\n')
    result = offhook("presence")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "pbx.office: Offhook does not speak the API of telphin\n"
    configure('[pbx.office]\nencoding = "cp1251"\n')
    result = offhook("presence")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("pbx.office: has no host: set it, ")
