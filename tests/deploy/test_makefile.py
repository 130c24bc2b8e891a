"""`make` and the setup it runs, with a fake interpreter whose pip prints its calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Creates a fake virtual environment. Its pip prints each call, and fails while {failing} exists.
FAKE_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python"
elif [ "$1 $2" = "-m pip" ]; then
    echo "pip install $*" && [ ! -e {failing} ]
else
    exec {python} "$@"
fi
"""


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """Return a path; pip fails while it exists."""
    return tmp_path / "pip-fails"


@pytest.fixture
def interpreter(tmp_path: Path, failing: Path) -> Path:
    return script(tmp_path / "python", FAKE_PYTHON.format(failing=failing, python=sys.executable))


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def make(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")
    }
    return subprocess.run(
        ["make", "--no-print-directory", *map(str, arguments)],
        cwd=ROOT,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def test_make_alone_lists_the_commands() -> None:
    listed = make().stdout
    assert [line.split()[1] for line in listed.splitlines()] == [
        "help",
        "demo",
        "test",
        "test-crm",
        "drill",
        "walk",
        "image",
        "brokers",
        "chaos",
        "chaos-cluster",
        "fuzz",
        "fuzz-api",
        "simulate",
        "check",
        "format",
        "lock",
        "translate",
        "docs",
        "release",
        "setup",
        "clean",
    ]


def test_setup_prints_its_steps_and_runs_once(tmp_path: Path, interpreter: Path) -> None:
    where = f"VENV={tmp_path / 'venv'}"
    first = make("setup", where, f"PYTHON={interpreter}")
    assert first.returncode == 0, first.stdout
    assert [line[:10] for line in first.stdout.splitlines()] == [
        "Setup 1/2:",
        "Setup 2/2:",
        "pip instal",  # the locked packages
        "pip instal",  # the project
        "Setup done",
    ]
    assert "pip install" not in make("setup", where, f"PYTHON={interpreter}").stdout
    assert "pip install" not in make("setup", where).stdout


def test_demo_installs_only_what_it_needs(tmp_path: Path, interpreter: Path) -> None:
    venv = tmp_path / "venv"
    where = [f"VENV={venv}", f"PYTHON={interpreter}"]
    first = make("demo", *where)
    assert "requirements/demo.txt" in first.stdout
    assert "requirements/dev.txt" not in first.stdout
    assert (venv / ".demo").exists()
    assert "pip install" not in make("demo", *where).stdout
    setup = make("setup", *where)
    assert "requirements/dev.txt" in setup.stdout
    assert "recreating" not in setup.stdout
    (venv / ".demo").unlink()
    assert "pip install" not in make("demo", *where).stdout  # `make setup` has installed it all


def test_interrupted_setup_starts_over(tmp_path: Path, interpreter: Path, failing: Path) -> None:
    venv = tmp_path / "venv"
    failing.touch()
    broken = make("setup", f"VENV={venv}", f"PYTHON={interpreter}")
    assert broken.returncode != 0
    assert "Run make again" in broken.stdout
    (venv / "half-written").touch()
    failing.unlink()
    repaired = make("setup", f"VENV={venv}", f"PYTHON={interpreter}")
    assert repaired.returncode == 0
    assert f"recreating {venv}" in repaired.stdout
    assert not (venv / "half-written").exists()


def test_changed_pyproject_updates_the_environment(tmp_path: Path, interpreter: Path) -> None:
    venv = tmp_path / "venv"
    make("setup", f"VENV={venv}", f"PYTHON={interpreter}")
    (venv / "mine").touch()
    os.utime(venv / ".ready", (0, 0))  # older than pyproject.toml
    # No PYTHON is given: the environment's interpreter counts, not the system's.
    again = make("setup", f"VENV={venv}")
    assert again.returncode == 0, again.stdout
    assert "pip install" in again.stdout
    assert (venv / "mine").exists()


def test_changed_lock_updates_the_environment(tmp_path: Path, interpreter: Path) -> None:
    venv = tmp_path / "venv"
    make("setup", f"VENV={venv}", f"PYTHON={interpreter}")
    (venv / "mine").touch()
    again = make("setup", f"VENV={venv}", "--what-if=requirements/dev.txt")
    assert again.returncode == 0, again.stdout
    assert "pip install" in again.stdout
    assert (venv / "mine").exists()


def test_another_python_recreates_the_environment(tmp_path: Path, interpreter: Path) -> None:
    venv = tmp_path / "venv"
    make("setup", f"VENV={venv}", f"PYTHON={interpreter}")
    newer = script(
        tmp_path / "newer",
        interpreter.read_text().replace(
            f'exec {sys.executable} "$@"',
            f'exec {sys.executable} -c "import sys; sys.version_info = (3, 99);'
            ' exec(sys.argv[1])" "$2"',
        ),
    )
    assert "recreating" in make("setup", f"VENV={venv}", f"PYTHON={newer}").stdout
    assert "pip install" not in make("setup", f"VENV={venv}").stdout  # without PYTHON it is kept


def test_environment_without_its_python_is_recreated(tmp_path: Path, interpreter: Path) -> None:
    venv = tmp_path / "venv"
    make("setup", f"VENV={venv}", f"PYTHON={interpreter}")
    (venv / "bin" / "python").unlink()
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "python3", interpreter.read_text())
    assert "recreating" in make("setup", f"VENV={venv}", **environment).stdout


def test_other_folder_is_left_alone(tmp_path: Path, interpreter: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    refused = make("setup", f"VENV={tmp_path / 'precious'}", f"PYTHON={interpreter}")
    assert refused.returncode != 0
    assert "exists and is not a virtual environment" in refused.stdout
    assert (tmp_path / "precious" / "thesis.txt").exists()


def test_missing_python_names_the_package(tmp_path: Path) -> None:
    answer = make("setup", f"VENV={tmp_path / 'venv'}", "PYTHON=python9.9")
    assert answer.returncode != 0
    assert "apt install python3 python3-venv" in answer.stdout


def test_old_python_names_the_version_needed(tmp_path: Path) -> None:
    old = script(
        tmp_path / "old",
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9);'
        ' exec(sys.argv[1])" "$2"\n',
    )
    answer = make("setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={old}")
    assert answer.returncode != 0
    assert "needs Python 3.11 or newer, and this is 3.9" in answer.stdout


def test_missing_venv_names_the_package(tmp_path: Path) -> None:
    """On Debian, python3 without python3-venv has no ensurepip."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")
    answer = make(
        "setup",
        f"VENV={tmp_path / 'venv'}",
        f"PYTHON={sys.executable}",
        PYTHONPATH=str(tmp_path),
    )
    assert answer.returncode != 0
    assert "apt install python3-venv" in answer.stdout
    assert not (tmp_path / "venv").exists()


@pytest.fixture
def newer(tmp_path: Path, failing: Path) -> Path:
    """Return a fake Python that is new enough for BottleCRM."""
    new = f'{sys.executable} -c "import sys; sys.version_info = (3, 99); exec(sys.argv[1])" "$2"'
    text = FAKE_PYTHON.format(failing=failing, python=new).replace(f'{new} "$@"', new)
    return script(tmp_path / "newer", text)


def install(tmp_path: Path, *arguments: object, **environment: str) -> tuple[int, str]:
    """Install BottleCRM with make into a folder of the test; return the exit code and output."""
    crms = tmp_path / "crms"
    answer = make(f"CRMS={crms}", *arguments, f"{crms}/bottlecrm/.ready", **environment)
    return answer.returncode, answer.stdout


def test_crm_is_installed_once(tmp_path: Path, newer: Path) -> None:
    code, output = install(tmp_path, f"CRM_PYTHON={newer}")
    assert code == 0, output
    assert "Installing" in output
    assert (tmp_path / "crms/bottlecrm/.ready").exists()
    code, output = install(tmp_path, f"CRM_PYTHON={newer}")
    assert code == 0
    assert "Installing" not in output


def test_interrupted_installation_of_a_crm_starts_over(
    tmp_path: Path, newer: Path, failing: Path
) -> None:
    failing.touch()
    assert install(tmp_path, f"CRM_PYTHON={newer}")[0] != 0
    (tmp_path / "crms/bottlecrm/half-written").touch()
    failing.unlink()
    assert install(tmp_path, f"CRM_PYTHON={newer}")[0] == 0
    assert not (tmp_path / "crms/bottlecrm/half-written").exists()


def test_crm_without_its_python_is_reinstalled(tmp_path: Path, newer: Path) -> None:
    install(tmp_path, f"CRM_PYTHON={newer}")
    (tmp_path / "crms/bottlecrm/bin/python").unlink()
    code, output = install(tmp_path, f"CRM_PYTHON={newer}")
    assert code == 0
    assert "Installing" in output


def test_python_that_does_not_run_is_skipped(tmp_path: Path, newer: Path) -> None:
    """As with pyenv: a shim exists for every version, but not every one runs."""
    shims = tmp_path / "shims"
    shims.mkdir()
    script(
        shims / "python3.14", "#!/bin/sh\necho 'pyenv: python3.14: command not found'; exit 127\n"
    )
    script(shims / "python3.13", f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.exit(1)'\n")
    (shims / "python3.12").symlink_to(newer)
    home = {"HOME": str(tmp_path), "PATH": f"{shims}:/usr/bin:/bin"}
    found = make("--eval=found: ; @echo '$(CRM_PYTHON)'", "found", **home)
    assert found.stdout.strip() == sys.executable  # its sys.executable


def test_python_of_pyenv_is_found(tmp_path: Path, newer: Path) -> None:
    for version, python in (("3.9.18", Path("/bin/false")), ("3.13.0", newer)):
        folder = tmp_path / ".pyenv/versions" / version / "bin"
        folder.mkdir(parents=True)
        (folder / "python").symlink_to(python)
    tools = tmp_path / "tools"  # without a Python
    tools.mkdir()
    for tool in ("echo", "ls", "make", "sort"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    home = {"HOME": str(tmp_path), "PATH": str(tools)}
    found = make("--eval=found: ; @echo '$(CRM_PYTHON)'", "found", **home)
    assert found.stdout.strip() == sys.executable


def test_without_a_newer_python_crm_tests_are_skipped(tmp_path: Path) -> None:
    code, output = install(tmp_path, "CRM_PYTHON=")
    assert code == 0
    assert (
        "There is no Python 3.12 or newer, which BottleCRM needs: its tests are skipped." in output
    )
    assert "make CRM_PYTHON=" in output
    assert not (tmp_path / "crms/bottlecrm/.ready").exists()


def test_named_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = script(
        tmp_path / "old",
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 11);'
        ' exec(sys.argv[1])" "$2"\n',
    )
    code, output = install(tmp_path, f"CRM_PYTHON={old}")
    assert code != 0
    assert "needs Python 3.12 or newer" in output
