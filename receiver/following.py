"""`follow()`: a process of the receiver takes part in reloads."""

from collections.abc import Callable

from offhook.callback_url import revoked_urls
from offhook.operations import reload_following
from offhook.operations.reload_following import SettingsPart
from offhook.operations.reload_member import FIXED_IN_RECEIVERS, check_fixed
from offhook.operations.running_files import SERVE, Loaded
from offhook.settings import Settings


def follow(
    settings: Settings, loaded: Loaded, take: Callable[[Settings, Loaded], None]
) -> Callable[[], None]:
    """As `offhook.operations.reload_following.follow`."""
    return reload_following.follow(loaded, receiver_part(settings, take), settings.redis_url)


def receiver_part(settings: Settings, take: Callable[[Settings, Loaded], None]) -> SettingsPart:
    """What a receiver does in a reload."""
    return SettingsPart(settings, SERVE, take, _check)


def _check(before: Settings, after: Settings) -> None:
    check_fixed(before, after, *FIXED_IN_RECEIVERS)
    revoked_urls(after.revoked_file)
