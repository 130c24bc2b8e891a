"""`follow()`: a process that loads no plugins takes part in reloads."""

import threading
from collections.abc import Callable

from offhook.connection import connect_rq
from offhook.operations.reload_member import FIXED, Member, check_fixed
from offhook.operations.running_files import Loaded, loaded_now
from offhook.settings import Settings, load_settings

_LEAVE_WITHIN = 1.0  # seconds


class SettingsPart:
    """What such a process does in a reload.

    Args:
        settings: those that it uses.
        take: uses others, and returns when it does.
        check: checks that a change from one to the other is possible; raises `ConfigError`.
    """

    def __init__(
        self,
        settings: Settings,
        program: str,
        take: Callable[[Settings, Loaded], None],
        check: Callable[[Settings, Settings], None] = lambda before, after: None,
    ) -> None:
        self._settings = settings
        self._program = program
        self._take = take
        self._check = check
        self._prepared: tuple[Settings, Loaded] | None = None

    def prepare(self) -> Loaded:
        """Load the settings."""
        settings = load_settings()
        check_fixed(self._settings, settings, *FIXED)
        self._check(self._settings, settings)
        loaded = loaded_now(settings, program=self._program)
        self._prepared = settings, loaded
        return loaded

    def change(self) -> bool:
        """Use the settings that are prepared."""
        if self._prepared is not None:
            self._take(*self._prepared)
            self._settings, self._prepared = self._prepared[0], None
        return True

    def drop(self) -> None:
        """Forget them."""
        self._prepared = None


def follow(loaded: Loaded, part: SettingsPart, redis_url: str) -> Callable[[], None]:
    """Take part in reloads, in a thread: to read a large configuration must hold up no request.

    Args:
        loaded: what the process runs.
        redis_url: of the inbox's server.

    Returns:
        A function that ends it.
    """
    member = Member(connect_rq(redis_url, tries=0), loaded.here(), part)
    ended = threading.Event()

    def run() -> None:
        member.look()
        while not ended.wait(member.look_in):
            member.look()
        member.leave()

    thread = threading.Thread(target=run, name="reload", daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join(_LEAVE_WITHIN)

    return end
