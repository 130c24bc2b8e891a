"""`follow()`: a process of the receiver takes part in reloads."""

import threading
from collections.abc import Callable

from offhook.callback_url import revoked_urls
from offhook.connection import connect_rq
from offhook.operations.reload_member import FIXED, FIXED_IN_RECEIVERS, Member, check_fixed
from offhook.operations.running_files import SERVE, Loaded, loaded_now
from offhook.settings import Settings, load_settings

_LEAVE_WITHIN = 1.0  # seconds


class ReceiverPart:
    """What a receiver does in a reload. It loads no plugins.

    Args:
        settings: those that it uses.
        take: uses others, and returns when it does.
    """

    def __init__(self, settings: Settings, take: Callable[[Settings, Loaded], None]) -> None:
        self._settings = settings
        self._take = take
        self._prepared: tuple[Settings, Loaded] | None = None

    def prepare(self) -> Loaded:
        """Load the settings."""
        settings = load_settings()
        check_fixed(self._settings, settings, *FIXED, *FIXED_IN_RECEIVERS)
        revoked_urls(settings.revoked_file)
        loaded = loaded_now(settings, program=SERVE)
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


def follow(
    settings: Settings, loaded: Loaded, take: Callable[[Settings, Loaded], None]
) -> Callable[[], None]:
    """Take part in reloads, in a thread: to read a large configuration must hold up no callback.

    Args:
        loaded: the version of `settings`.
        take: uses other settings; called in that thread.

    Returns:
        A function that ends it.
    """
    redis = connect_rq(settings.redis_url, tries=0)
    member = Member(redis, loaded.here(), ReceiverPart(settings, take))
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
