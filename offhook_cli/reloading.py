"""`--reload`: starts the workers anew when the configuration or a plugin changes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from offhook.plugins import plugin_modules
from offhook.settings import config_folder, sound_tables
from offhook_cli.local_processes import stop
from offhook_cli.screen import note
from workers.process import die_with_parent

EVERY = 0.5  # seconds from one look to the next
_IGNORED = {"node_modules", "__pycache__", "venv", "site-packages"}

Files = Mapping[Path, int]


def files() -> Files:
    """When each file changed that the configuration or a plugin may be in."""
    found = {}
    for place in {config_folder(), *_packages()}:
        for path in [place] if place.is_file() else _in(place):
            with suppress(OSError):  # it was deleted meanwhile
                found[path] = path.stat().st_mtime_ns
    return found


def _packages() -> Iterator[Path]:
    """The packages and modules of the configured plugins that are developed elsewhere."""
    for module in plugin_modules(*sound_tables()):
        with suppress(ImportError, ValueError):  # `work` reports it
            spec = find_spec(module.partition(".")[0])
            if spec is not None and spec.origin and _IGNORED.isdisjoint(Path(spec.origin).parts):
                path = Path(spec.origin)
                yield path.parent if spec.submodule_search_locations else path


def _in(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each not in _IGNORED]
        yield from (Path(place, each) for each in names if each.endswith((".py", ".toml")))


def differing(before: Files, now: Files) -> list[Path]:
    """The files that were changed, added or deleted."""
    return sorted(path for path in now.keys() | before.keys() if now.get(path) != before.get(path))


def named(changed: list[Path]) -> str:
    """A line about changed files."""
    return f"Changed: {', '.join(dict.fromkeys(path.name for path in changed))}"


def work() -> None:
    """Run `offhook work`, and start it anew when a file changes, until SIGTERM or Ctrl-C.

    If it cannot start, because a file is wrong, the next change starts it.
    """
    before, running = files(), _start()

    def forward(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, forward)
    try:
        while True:
            time.sleep(EVERY)
            now = files()
            if changed := differing(before, now):
                note(f"{named(changed)}: starting the workers anew")
                before = now
                stop(running)
                running = _start()
    except KeyboardInterrupt:
        running.terminate()
        with suppress(KeyboardInterrupt):
            running.wait()
            return
        running.terminate()  # the second signal ends deliveries in flight
        running.wait()


def _start() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "offhook_cli", "work"],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us, who pass it on
        preexec_fn=die_with_parent,
    )
