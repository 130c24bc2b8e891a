"""`Keeper`: the first process of `offhook work`, which replaces one version by the next.

Each version is a supervisor in a process that was forked from here, where no plugin is loaded: so
it imports the plugins anew, and a version that is wrong leaves nothing behind.
"""

import gc
import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType

from setproctitle import setproctitle

from offhook.connection import connect_rq
from offhook.errors import ConfigError
from offhook.operations.reload_member import FIXED, Member, check_fixed
from offhook.operations.running_files import Loaded
from offhook.plugins import load_checked
from offhook.settings import Settings, config_path
from workers import process
from workers.supervisor import Supervisor, required_processes

log = logging.getLogger("offhook.supervisor")

_GO, _SERVES = "go", "serves"
_LOOP = 0.1  # seconds
_SIGNALS = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.SIG_IGN,
    signal.SIGHUP: signal.SIG_IGN,
}


class Generation:
    """A version in a process of its own: its supervisor, which waits for `go`.

    Args:
        before: the settings that run, if this is a reload.
    """

    def __init__(self, before: Settings | None = None) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        # Safe: this process has no threads.
        self._process = multiprocessing.get_context("fork").Process(
            target=_run, args=(theirs, before), name="version"
        )
        self._process.start()
        theirs.close()
        self._goes = self._serves = False
        self._loaded: Loaded | None = None
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """What it has loaded, once `loaded` is known."""
        assert self._settings is not None  # noqa: S101
        return self._settings

    def loaded(self, wait: float | None = 0) -> Loaded | None:
        """What it has loaded; None if it is not finished yet.

        Args:
            wait: seconds; None for as long as it takes.

        Raises:
            ConfigError: it cannot be loaded.
        """
        if self._loaded is None and self._pipe.poll(wait):
            try:
                answer = self._pipe.recv()
            except EOFError:
                answer = ["the process that loads the plugins has ended: see its log"]
            if isinstance(answer, list):
                raise ConfigError(answer)
            self._loaded, self._settings = answer
        return self._loaded

    def go(self) -> None:
        """Let it start its processes."""
        if not self._goes:
            self._goes = True
            with suppress(BrokenPipeError):  # it has ended
                self._pipe.send(_GO)

    def serves(self) -> bool:
        """Return whether its processes serve the handlers, or could not do so soon."""
        with suppress(EOFError):
            if not self._serves and self._pipe.poll():
                self._serves = self._pipe.recv() == _SERVES
        return self._serves

    @property
    def exit_code(self) -> int | None:
        """As of `multiprocessing`; None while it runs."""
        return self._process.exitcode

    def stop(self) -> None:
        """Have it finish the deliveries in flight and end; the second time, end at once."""
        if self._process.is_alive():
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class Keeper:
    """Runs one version after the other. In a reload it is a `Part`.

    Args:
        reload: begins a reload of the installation, on SIGHUP; None to end then.

    Raises:
        ConfigError: the configuration is wrong.
    """

    def __init__(self, reload: Callable[[], "subprocess.Popen[bytes]"] | None = None) -> None:
        self._running = Generation()
        loaded = self._running.loaded(wait=None)
        assert loaded is not None  # noqa: S101
        self._next: Generation | None = None
        self._leaving: list[Generation] = []
        self._reload = reload
        self._started: subprocess.Popen[bytes] | None = None
        self._hung_up = False
        self._signals = 0
        redis = connect_rq(self.settings.redis_url, tries=0)
        self._member = Member(redis, loaded.here(), self)

    @property
    def settings(self) -> Settings:
        """The configuration that runs."""
        return self._running.settings

    @property
    def names(self) -> list[str]:
        """The names of its processes."""
        return [each.name for each in required_processes(self.settings)]

    def take_signals(self) -> None:
        """From now on, stop gracefully at SIGTERM or SIGINT, and reload at SIGHUP."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if self._reload is not None:
            signal.signal(signal.SIGHUP, self._on_hangup)

    def run(self) -> int:
        """Run until a signal stops it. Return the exit code: 1 if the supervisor has died."""
        setproctitle("offhook work")
        gc.collect()
        gc.freeze()
        self._running.go()
        look_at = 0.0
        while self._running.exit_code is None:
            if not self._signals and time.monotonic() >= look_at:
                self._member.look()
                look_at = time.monotonic() + self._member.look_in
            self._begin_reload()
            self._reap()
            time.sleep(_LOOP)
        self._member.leave()
        self.drop()
        while self._leaving:
            time.sleep(_LOOP)
            self._reap()
        return 0 if self._signals else 1

    def give_up(self) -> None:
        """End the version that has not begun; the interpreter would wait for it forever."""
        self._running.kill()

    # Its part in a reload

    def prepare(self) -> Loaded | None:
        """Load the new version in a process of its own."""
        if self._next is None:
            self._next = Generation(self.settings)
        return self._next.loaded()

    def change(self) -> bool:
        """Start the new version. Once it serves, stop the old one, which ends its deliveries."""
        if self._next is not None:
            self._next.go()
            if self._next.exit_code is not None:
                raise ConfigError("the new version has ended: see its log")
            if not self._next.serves():
                return False
            self._running.stop()
            self._leaving.append(self._running)
            self._running, self._next = self._next, None
            if loaded := self._running.loaded():
                log.info("changed to version %s", loaded.version)
        self._reap()
        return not self._leaving

    def drop(self) -> None:
        """End the version that was prepared."""
        if self._next is not None:
            self._next.kill()
            self._leaving.append(self._next)
            self._next = None

    def _reap(self) -> None:
        """Forget the stopped versions that have ended, so that none stays a zombie."""
        self._leaving = [each for each in self._leaving if each.exit_code is None]

    # Signals

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop; at the second signal, also the deliveries in flight."""
        self._signals += 1
        self._running.stop()
        for each in self._leaving if self._signals > 1 else ():
            each.stop()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._hung_up = True

    def _begin_reload(self) -> None:
        if self._started is not None and self._started.poll() is not None:
            self._started = None
        if self._hung_up and self._started is None and self._reload is not None:
            self._hung_up = False
            self._started = self._reload()


def _run(pipe: Connection, before: Settings | None) -> None:
    """Load a version, say so, and run it once the keeper says so."""
    setproctitle("offhook work: version")
    os.setpgrp()  # the keeper handles Ctrl-C
    process.die_with_parent()
    for number, handler in _SIGNALS.items():
        signal.signal(number, handler)
    importlib.invalidate_caches()
    try:
        supervisor, settings = _load(before)
    except ConfigError as error:
        pipe.send(error.problems)
        return
    setproctitle(f"offhook work: version {supervisor.loaded.version}")
    pipe.send((supervisor.loaded, settings))
    with suppress(EOFError):
        pipe.recv()
        supervisor.run(lambda: pipe.send(_SERVES))


def _load(before: Settings | None) -> tuple[Supervisor, Settings]:
    settings = load_checked()
    if not settings.all_handlers:
        raise ConfigError(
            f"no handler is configured: add a [handlers.NAME] table to {config_path()}; "
            "`offhook handlers` lists the installed ones"
        )
    if before is not None:
        check_fixed(before, settings, *FIXED)
    supervisor = Supervisor(settings)
    if before is not None and supervisor.loaded.broken:
        raise ConfigError(supervisor.loaded.broken)
    return supervisor, settings
