"""The systemd units: understood by systemd, hardened, and stopped as a warm shutdown needs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from offhook.settings import HandlerSettings

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_each_kind_of_process_has_a_unit() -> None:
    assert [unit.name for unit in UNITS] == ["offhook-web.service", "offhook-worker.service"]


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units, calling an `offhook` that is there: systemd checks that, too."""
    offhook = Path(sys.executable).parent / "offhook"
    paths = []
    for unit in UNITS:
        path = tmp_path / unit.name
        path.write_text(unit.read_text().replace("/opt/offhook/bin/offhook", str(offhook)))
        paths.append(str(path))
    return paths


@needs_systemd
def test_systemd_finds_nothing_to_say_about_them(installed: list[str]) -> None:
    answer = subprocess.run(
        ["systemd-analyze", "verify", *installed], capture_output=True, text=True, check=False
    )
    # A misspelt key is a warning only, with exit status 0.
    assert (answer.returncode, answer.stdout + answer.stderr) == (0, "")


@needs_systemd
def test_they_are_hardened(installed: list[str]) -> None:
    """systemd's own measure, from 0.0 (nothing left to exploit) to 10.0."""
    for unit in installed:
        answer = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=20", unit],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 0, answer.stdout[-300:]


def test_the_worker_has_the_time_that_its_deliveries_may_take() -> None:
    text = (UNITS[0].parent / "offhook-worker.service").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    longest = HandlerSettings(use="console").timeout
    assert found is not None
    assert int(found[1]) > longest + 10  # what the crew itself waits
    # To the main process only: its children end in the order that it knows.
    assert "\nKillMode=mixed\n" in text
