"""`offhook handlers new` and the tutorial, run as written but without a network."""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.installation import ROOT
from tests.offhook_cli.conftest import Offhook
from tests.offhook_cli.samples import samples
from tests.ports import free_port

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
PORT = "8091"  # of the CRM
POLLED = ("cat dev.log", "cat crm.log")  # commands a reader repeats until they show it
FILES = {"README.md", "my_crm.py", "pyproject.toml", "test_my_crm.py"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offline() -> dict[str, str]:
    """Return an environment in which pip uses installed packages and asks no index."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "false",  # pip reads this as: no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "COLUMNS": "120",
    }


def run(*command: str, folder: Path, **environment: str) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=offline() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_new_project_installs_passes_its_tests_and_is_listed(
    offhook: Offhook, folder: Path
) -> None:
    result = offhook("handlers", "new", "acme_phone_log")
    assert (result.exit_code, result.stderr) == (0, "")
    project, site = folder / "acme_phone_log", folder / "site"
    into = ("--no-deps", "--target", str(site))
    run(sys.executable, "-m", "pip", "install", "--quiet", *into, str(project), folder=folder)
    assert (site / "acme_phone_log.py").is_file()
    assert not (site / "test_acme_phone_log.py").exists()

    path = f"{site}:{ROOT}:{sysconfig.get_path('purelib')}"
    without = ("-p", "no:cacheprovider", "-p", "no:schemathesis")
    options = ("-q", *without, "-W", "error", "--rootdir", str(project))
    tested = run(
        sys.executable, "-m", "pytest", *options, str(project), folder=folder, PYTHONPATH=path
    )
    assert "5 passed" in tested
    shown = run(
        sys.executable,
        "-m",
        "offhook_cli",
        *("handlers", "show", "acme_phone_log"),
        folder=folder,
        PYTHONPATH=path,
    )
    assert "Log every finished call in acme_phone_log." in shown
    assert re.search(r"^ *url +text +where calls are logged", shown, re.MULTILINE)


def test_new_project_uses_its_own_name_everywhere(offhook: Offhook, folder: Path) -> None:
    offhook("handlers", "new", "acme")
    texts = {path.name: path.read_text() for path in (folder / "acme").iterdir()}
    assert set(texts) == {name.replace("my_crm", "acme") for name in FILES}
    assert not [name for name, text in texts.items() if re.search("my_?crm", text, re.IGNORECASE)]
    assert "class Acme(Handler):" in texts["acme.py"]


def test_new_project_passes_ruff(offhook: Offhook, folder: Path) -> None:
    offhook("handlers", "new", "my_crm")
    run(
        *(sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "100"),
        *("--select", "E,F,W,I,UP,B,RUF", "my_crm"),
        folder=folder,
    )
    run(
        *(sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "100"),
        *("--check", "my_crm"),
        folder=folder,
    )


def test_new_project_prints_files_and_next_steps(offhook: Offhook, folder: Path) -> None:
    printed = offhook("handlers", "new", "my_crm").stdout
    for path in sorted((folder / "my_crm").iterdir()):
        assert f"  {path.relative_to(folder)}\n" in printed
    assert "pip install --editable ./my_crm\n" in printed
    assert 'use = "my_crm"\n' in printed


@pytest.mark.parametrize("existing", ["file", "folder"])
def test_nothing_is_overwritten(existing: str, offhook: Offhook, folder: Path) -> None:
    path = folder / "my_crm"
    path.write_text("mine") if existing == "file" else path.mkdir()
    result = offhook("handlers", "new", "my_crm")
    assert result.exit_code == 1
    assert result.stderr == "my_crm already exists; nothing was written.\n"
    assert path.is_file() or not list(path.iterdir())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("my-crm", "is not a valid module name"),
        ("../crm", "is not a valid module name"),
        ("class", "is not a valid module name"),
        ("json", "a module json is already installed"),
        ("webhook", "a handler webhook is already installed"),
        ("handler", "a class Handler would clash"),
    ],
)
def test_unusable_name_is_refused(name: str, problem: str, offhook: Offhook, folder: Path) -> None:
    result = offhook("handlers", "new", name)
    assert result.exit_code == 1
    assert problem in result.stderr
    assert not list(folder.iterdir())


def test_unwritable_folder_is_one_sentence(offhook: Offhook, folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    result = offhook("handlers", "new", "my_crm")
    assert result.exit_code == 1
    assert result.stderr == "cannot write my_crm: No such file or directory\n"


class Shell:
    """A bash that reads commands as a reader would type them."""

    def __init__(self, folder: Path) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=offline(),
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, command: str) -> str:
        """Run a command that must succeed, and return its output."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f'{command}\necho "[$?]"\n')
        self._bash.stdin.flush()
        printed = ""
        for line in self._bash.stdout:
            if re.fullmatch(r"\[\d+\]\n", line):
                assert line == "[0]\n", f"{command}\n{printed}"
                return printed
            printed += line
        raise AssertionError(f"the shell ended: {command}\n{printed}")

    def close(self) -> None:
        """Kill the shell, and processes that a failed test left running in it."""
        with suppress(subprocess.TimeoutExpired):
            self._bash.communicate("kill $(jobs -p) 2>/dev/null; wait\n", timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    opened = Shell(tmp_path)
    yield opened
    opened.close()


def test_tutorial_leads_to_a_delivered_event(tmp_path: Path, shell: Shell) -> None:
    """Run every command as written, except for the port of the CRM, which may be in use."""
    page = PAGE.replace(PORT, str(free_port()))
    (tmp_path / "offhook").symlink_to(ROOT)
    [program] = re.findall(r"```python\n# crm\.py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "crm.py").write_text(program)
    for command, shown in samples(page):
        expected = re.compile(".*".join(map(re.escape, shown.strip().split("..."))), re.DOTALL)
        # A file that a command in the background writes may not exist yet.
        command_line = f"{command} || true" if command in POLLED else command
        printed = shell(command_line).strip()
        deadline = time.monotonic() + 40
        while command in POLLED and not expected.fullmatch(printed) and time.monotonic() < deadline:
            time.sleep(0.5)
            printed = shell(command_line).strip()
        assert expected.fullmatch(printed), f"{command}\n{printed}"
