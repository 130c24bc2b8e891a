"""`offhook simulate` against a real HTTP server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from redis import Redis
from typer.testing import CliRunner, Result

from offhook.callback_url import is_valid
from offhook.event import from_stored
from offhook_cli import app
from tests.conftest import Configure

SECRET = "a secret for tests, forty characters long"


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_CONFIG", str(tmp_path / "empty.toml"))
    (tmp_path / "empty.toml").touch()
    monkeypatch.setenv("OFFHOOK_SECRET", SECRET)


def run(*options: str) -> Result:
    return CliRunner().invoke(app, ["simulate", "--rate", "1000", "--speed", "100000", *options])


async def run_at(status: int, *options: str) -> tuple[Result, list[web.Request]]:
    """Run it against a server that answers with `status`; return the result and the callbacks."""
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(status=status)

    application = web.Application()
    application.router.add_route("*", "/{anything:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/base"
        return await asyncio.to_thread(run, "--url", url, *options), seen
    finally:
        await runner.cleanup()


def named(request: web.Request) -> list[str]:
    """Return PBX, extension, event type and token of a callback URL."""
    head, names = request.path.split("/callback/")
    assert head == "/base"
    return names.split("/")


async def test_callbacks_use_signed_urls() -> None:
    result, seen = await run_at(200, "--pbx", "branch", "--calls", "10")
    assert result.exit_code == 0, result.output
    assert len({request.query.get("CallID") for request in seen}) > 1
    for request in seen:
        pbx, extension, event_type, token = named(request)
        assert pbx == "branch"
        assert is_valid([SECRET], token, pbx, extension, event_type)


async def test_json_counts_callbacks_and_answers() -> None:
    result, seen = await run_at(200, "--calls", "10", "--json")
    assert result.stdout.startswith("{")
    counted = json.loads(result.stdout)
    assert counted["calls"] == 10
    assert counted["callbacks"] == counted["accepted"] == len(seen)
    assert (counted["refused"], counted["failed"]) == ({}, {})
    assert counted["callbacks_per_second"] > 0
    assert result.stderr == ""


async def test_table_counts_answers_and_names_the_fix() -> None:
    result, _ = await run_at(404, "--calls", "1", "--scenario", "missed")
    assert result.exit_code == 1
    assert "2 × 404" in result.stdout
    assert "same secret" in result.stderr


@pytest.mark.parametrize("status", [404, 503])
async def test_refused_callback_exits_with_1(status: int) -> None:
    result, seen = await run_at(status, "--calls", "1", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["refused"] == {str(status): len(seen)}


def test_unreachable_receiver_exits_with_1() -> None:
    result = run("--url", "http://127.0.0.1:1", "--calls", "1", "--scenario", "busy")
    assert result.exit_code == 1
    assert "2 × no connection" in result.stdout
    assert "offhook serve" in result.stderr


def test_public_url_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_PUBLIC_URL", "http://127.0.0.1:1")
    result = run("--calls", "1", "--json")
    assert "no connection" in json.loads(result.stdout)["failed"]


async def test_only_given_extensions_are_used() -> None:
    options = ("--extensions", " 7*1, 7*2,7*2", "--queue", "7*9", "--calls", "60")
    _, seen = await run_at(200, *options)
    assert {named(request)[1] for request in seen} == {"7*1", "7*2", "7*9"}


@pytest.mark.parametrize(
    ("given", "used"), [("get", {"GET"}), ("POST", {"POST"}), ("both", {"GET", "POST"})]
)
async def test_method_option_selects_the_http_method(given: str, used: set[str]) -> None:
    _, seen = await run_at(200, "--calls", "20", "--method", given)
    assert {request.method for request in seen} == used


async def test_scenario_option_selects_the_events() -> None:
    options = ("--scenario", "missed", "--scenario", "outgoing", "--calls", "30")
    _, seen = await run_at(200, *options)
    events = {named(request)[2] for request in seen}
    assert events == {"dial-in", "dial-out", "answer-out", "hangup"}


async def test_equal_seeds_place_equal_calls() -> None:
    placed = []
    for seed in ("7", "7", "8"):
        _, seen = await run_at(200, "--method", "GET", "--calls", "5", "--seed", seed)
        placed.append(sorted(request.query["CallID"] for request in seen))
    once, again, other = placed
    assert once == again
    assert not set(once) & set(other)


async def test_all_wrong_options_are_reported_before_any_callback() -> None:
    result, seen = await run_at(
        200,
        "--extensions",
        "0003*210, reception,reception",
        "--scenario",
        "ring-group",
        "--queue",
        "",
    )
    assert result.exit_code == 2
    assert seen == []
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("'reception' is not an extension")
    assert lines[1].startswith("'' is not an extension")
    assert lines[2] == "--scenario ring-group: needs 3 phones, --extensions has 2"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "http://127.0.0.1/?a=b"])
def test_wrong_url_is_refused(url: str) -> None:
    result = run("--url", url)
    assert result.exit_code == 2
    assert result.stderr.startswith("--url: ")


def test_empty_extensions_are_refused() -> None:
    result = run("--extensions", " ,")
    assert result.exit_code == 2
    assert result.stderr == "--extensions: name at least one\n"


def test_missing_secret_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OFFHOOK_SECRET")
    result = run()
    assert result.exit_code == 2
    assert result.stderr.startswith("secret: is not set")
    assert "Traceback" not in result.output


async def test_a_test_event_about_trouble_reaches_the_inbox(
    redis_url: str, configure: Configure
) -> None:
    configure("[handlers.chat]\nuse = 'console'\nevents = ['trouble']\n")
    result = await asyncio.to_thread(run, "--trouble", "dead-letter")
    assert result.exit_code == 0, result.output
    with Redis.from_url(redis_url) as redis:
        found: Any = redis.xrange("offhook:{0}:inbox")
    [(_, fields)] = found
    event = from_stored(fields[b"e"])
    assert event.parameters["test"] == "yes"
    assert event.parameters["text"].startswith("Test: 3 deliveries to crm became dead letters")
    result = await asyncio.to_thread(run, "--trouble", "hangup")
    assert result.exit_code == 2
    assert "--trouble: hangup is not one of handler-failing, " in result.output
