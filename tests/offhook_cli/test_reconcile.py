"""`offhook calls reconcile`, on a sandbox PBX."""

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from offhook_cli import reconcile as command
from tests.conftest import Configure
from tests.offhook.sandbox import sandbox
from tests.offhook_cli.conftest import Offhook
from tests.offhook_cli.samples import lines, sample
from tests.workers.reconcile.reconciling import Bench, configuration, recovered_id
from workers.reconcile.reconciliation import Reconciliation

RECONCILE = ("calls", "reconcile")


@pytest.fixture
def bench(redis_url: str, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(command, "Reconciliation", partial(Reconciliation, young=timedelta()))
    with sandbox() as pbx:
        configure(configuration(pbx))
        made = Bench(pbx, redis_url)
        yield made
        made.redis.close()


def test_closed_and_recovered_calls_are_counted_and_listed(bench: Bench, offhook: Offhook) -> None:
    bench.place("answered")
    endless = bench.place("answered", "hangup", seed=2)
    lost = bench.place("missed", "all", seed=3)
    bench.keep()
    plan = offhook(*RECONCILE, "--dry-run")
    assert plan.exit_code == 0, plan.output
    assert f"main/{endless.id}" in plan.stdout
    assert "to be recovered" in plan.stdout
    assert plan.stdout.endswith(
        "main: 3 calls on the PBX, 2 here; 1 would be closed, 1 would be recovered.\n"
    )
    done = offhook(*RECONCILE, "--since", "2d")
    assert f"main/{recovered_id(lost)}" in done.stdout
    assert done.stdout.endswith("main: 3 calls on the PBX, 2 here; 1 closed, 1 recovered.\n")
    shown = lines(sample("calls.md", "offhook calls reconcile --since 2d"))
    assert (shown[0], shown[-1]) == (lines(done.stdout)[0], lines(done.stdout)[-1])
    bench.keep()
    again = offhook(*RECONCILE, "--since", "2d")
    assert again.stdout == "main: 3 calls on the PBX, 3 here; 0 closed, 0 recovered.\n"
    assert bench.told(recovered_id(lost)) == ["call-started", "call-ended", "missed-call"]


def test_json_lists_closed_and_recovered_calls(bench: Bench, offhook: Offhook) -> None:
    lost = bench.place("missed", "all")
    bench.keep()
    [found] = json.loads(offhook(*RECONCILE, "--pbx", "main", "--json").stdout)
    assert (found["on_the_pbx"], found["here"], found["closed"]) == (1, 0, [])
    assert found["recovered"] == [f"main/{recovered_id(lost)}"]


def test_since_limits_the_calls_compared(bench: Bench, offhook: Offhook) -> None:
    bench.place("missed", "all", ago=timedelta(hours=3))
    bench.keep()
    assert "0 calls on the PBX" in offhook(*RECONCILE, "--since", "2h").stdout
    assert "1 call on the PBX" in offhook(*RECONCILE, "--since", "4h").stdout


def test_since_before_retention_is_shortened_and_reported(bench: Bench, offhook: Offhook) -> None:
    result = offhook(*RECONCILE, "--since", "30d")
    assert "Calls are kept for keep_days: compared only since" in result.stderr
    assert "compared only since" not in offhook(*RECONCILE, "--since", "6d").stderr


def test_refusal_of_the_pbx_is_one_sentence(
    bench: Bench, offhook: Offhook, configure: Configure
) -> None:
    configure(configuration(bench.pbx).replace("sandbox-token", "expired-token"))
    result = offhook(*RECONCILE)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("main: the PBX refuses: ")
    assert "expired-token" not in result.output


def test_missing_preconditions_are_one_sentence_each(
    bench: Bench, offhook: Offhook, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.place("answered")
    hurried = partial(Reconciliation, young=timedelta(), checks=0)
    monkeypatch.setattr(command, "Reconciliation", hurried)
    result = offhook(*RECONCILE)
    assert result.exit_code == 1
    assert "main: not all events are folded into calls yet" in result.stderr
    configure(configuration(bench.pbx).replace("zone = 'UTC'", ""))
    result = offhook(*RECONCILE)
    assert result.exit_code == 2
    assert "pbx.main.zone: is not set" in result.stderr
    configure("[pbx.office]\ndialect = 'telphin'\n")
    assert "does not speak the API of telphin" in offhook(*RECONCILE).stderr
