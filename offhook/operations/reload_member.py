"""`Member`: takes part in reloads on behalf of one process."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from secrets import token_hex
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError

from offhook.errors import ConfigError
from offhook.operations.processes import LOOK_EVERY, OFFHOOK, Process, Reload, leave, report
from offhook.operations.running_files import Loaded, some
from offhook.settings import Settings

# Their values are in use as long as the process runs: connections, files, the layout of the inbox.
FIXED = ("redis_url", "rq_url")
FIXED_IN_RECEIVERS = ("durability", "replicas", "partitions", "journal", "journal_size")
_SOON = 0.1  # seconds


class Part(Protocol):
    """What a process does in a reload. A `ConfigError` says why it cannot."""

    def prepare(self) -> Loaded | None:
        """Load the new version, and use the old one. Return None if that is not finished yet."""
        ...

    def change(self) -> bool:
        """Use the version that is prepared. Return whether nothing uses the old one any more."""
        ...

    def drop(self) -> None:
        """Forget the version that is prepared, if there is one."""
        ...


class Member:
    """Reports what a process runs, and follows a reload: prepares, then changes or forgets it.

    Args:
        redis: a blocking client of the inbox's server.
        loaded: what the process runs.
    """

    def __init__(self, redis: Redis, loaded: Loaded, part: Part) -> None:
        self.name = f"{loaded.host}/{loaded.pid}/{token_hex(4)}"
        self.process = Process(loaded)
        self._redis = redis
        self._part = part
        self._prepared = loaded

    @property
    def look_in(self) -> float:
        """Seconds until the next look is due."""
        return _SOON if self.process.step in ("preparing", "ready", "changing") else LOOK_EVERY

    def look(self) -> None:
        """Report, and do what is to be done. Redis may be away: the process runs on as it is."""
        with suppress(RedisError):
            before = None
            while before != self.process:
                before = self.process
                self._follow(report(self._redis, self.name, self.process))

    def leave(self) -> None:
        """The process ends."""
        with suppress(RedisError):
            leave(self._redis, self.name)

    def _follow(self, reload: Reload | None) -> None:
        if self.process.step == "changing":
            self._change(self.process.reload)
            return
        if reload is None or reload.id != self.process.reload:
            if self.process.step in ("preparing", "ready"):
                self._part.drop()
            self.process = Process(self.process.loaded)
        if reload is None:
            return
        if self.process.step in ("", "preparing") and self._concerns(reload):
            self._prepare(reload)
        if self.process.step == "ready" and reload.committed:
            self._change(reload.id)

    def _concerns(self, reload: Reload) -> bool:
        """Return whether to take part: not in what was over before the process began."""
        began = datetime.fromisoformat(self.process.loaded.at)
        return not reload.committed or datetime.fromisoformat(reload.at) >= began

    def _prepare(self, reload: Reload) -> None:
        loaded = self.process.loaded
        if loaded.runs(reload.loaded) and not loaded.broken:
            self.process = Process(loaded, reload.id, "done")
            return
        try:
            if reload.offhook != OFFHOOK:
                raise ConfigError(
                    f"it runs Offhook {OFFHOOK}, and {reload.offhook} is installed: restart it"
                )
            prepared = self._part.prepare()
            if prepared is not None and (other := prepared.differing(reload.loaded)):
                raise ConfigError(f"its files are not those of this version: {some(other)}")
        except ConfigError as error:
            self._refuse(reload.id, error)
            return
        if prepared is None:
            self.process = Process(loaded, reload.id, "preparing")
        else:
            self._prepared = prepared
            self.process = Process(loaded, reload.id, "ready")

    def _change(self, reload: str) -> None:
        try:
            changed = self._part.change()
        except ConfigError as error:
            self._refuse(reload, error)
            return
        if changed:
            loaded = replace(self._prepared, pid=self.process.loaded.pid)
            self.process = Process(loaded, reload, "done")
        else:
            self.process = Process(self.process.loaded, reload, "changing")

    def _refuse(self, reload: str, error: ConfigError) -> None:
        self._part.drop()
        self.process = Process(self.process.loaded, reload, "refused", error.problems)


def check_fixed(before: Settings, after: Settings, *names: str) -> None:
    """Check that these settings are as they were.

    Raises:
        ConfigError: those that have changed.
    """
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    if changed:
        raise ConfigError(f"{', '.join(changed)} cannot change while it runs: restart it")
