"""What this `offhook work` runs: one version of the configuration in all its processes.

Without it, a process that starts anew would use a configuration that has changed meanwhile, beside
others that do not.
"""

from collections.abc import Collection
from dataclasses import dataclass

from offhook.settings import Settings, load_settings


@dataclass(frozen=True)
class Version:
    """A configuration, as it was loaded.

    Attributes:
        broken: the plugins that could not be loaded, as `handlers.NAME`.
    """

    settings: Settings
    broken: Collection[str]


RUNNING: Version | None = None  # the supervisor sets it before it forks


def settings() -> Settings:
    """The configuration of this `offhook work`."""
    return RUNNING.settings if RUNNING else load_settings()


def is_broken(plugin: str) -> bool:
    """Return whether a plugin, such as `handlers.crm`, could not be loaded at the start."""
    return RUNNING is not None and plugin in RUNNING.broken
