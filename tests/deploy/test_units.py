"""The systemd units are valid, hardened, and stop workers gracefully."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from offhook.settings import HandlerSettings
from receiver.connections import WANTED

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_each_kind_of_process_has_a_unit() -> None:
    assert [unit.name for unit in UNITS] == [
        "offhook-console.service",
        "offhook-web.service",
        "offhook-worker.service",
    ]


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """Return the units with an existing `offhook`: systemd checks that the command exists."""
    offhook = Path(sys.executable).parent / "offhook"
    paths = []
    for unit in UNITS:
        path = tmp_path / unit.name
        path.write_text(unit.read_text().replace("/opt/offhook/bin/offhook", str(offhook)))
        paths.append(str(path))
    return paths


@needs_systemd
def test_systemd_accepts_the_units_without_a_warning(installed: list[str]) -> None:
    answer = subprocess.run(
        ["systemd-analyze", "verify", *installed], capture_output=True, text=True, check=False
    )
    # For a misspelled key systemd only warns, and exits with 0.
    assert (answer.returncode, answer.stdout + answer.stderr) == (0, "")


@needs_systemd
def test_units_are_hardened(installed: list[str]) -> None:
    """systemd rates exposure from 0.0 (safe) to 10.0; the threshold 15 means 1.5."""
    for unit in installed:
        answer = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=15", unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stdout[-300:]


def test_worker_may_finish_its_deliveries_before_it_is_killed() -> None:
    text = (UNITS[0].parent / "offhook-worker.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    longest = HandlerSettings(use="console").timeout
    assert found is not None
    assert int(found[1]) > longest + 10  # the supervisor's own timeout
    # Only the main process gets the signal: it stops its children in order.
    assert "\nKillMode=mixed\n" in text


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_unit_allows_as_many_connections_as_the_receiver_wants(unit: Path) -> None:
    assert re.findall(r"^LimitNOFILE=(\d+)$", unit.read_text(), re.MULTILINE) == [str(WANTED)]
