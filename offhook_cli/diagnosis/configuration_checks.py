"""Checks of the configuration, its plugins and its files."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from offhook.plugins import Plugins
from offhook.settings import Settings, config_path
from offhook_cli.diagnosis.findings import Finding, failed, passed, warned
from offhook_cli.redaction import file_settings, secret_files, secret_settings


@dataclass(frozen=True)
class SeenConfiguration:
    """The configuration.

    Attributes:
        settings: None if they do not load.
    """

    plugins: Plugins
    settings: Settings | None


def settings(seen: SeenConfiguration) -> Iterator[Finding]:
    """Every setting is right, those of plugins too."""
    yield from map(failed, seen.plugins.problems)
    if seen.settings is not None and not seen.plugins.problems:
        where = config_path().absolute() if _mode(config_path()) else "the environment alone"
        counts = {
            "handlers": len(seen.settings.handlers),
            "lookups": len(seen.settings.lookups),
            "PBXs": len(seen.settings.pbx),
        }
        tables = ", ".join(f"{name}: {count}" for name, count in counts.items())
        yield passed(f"{where} is valid ({tables})")


def plugins(seen: SeenConfiguration) -> Iterator[Finding]:
    """Every plugin can be loaded, and has what it needs."""
    yield from map(failed, seen.plugins.broken.values())
    yield from map(warned, seen.plugins.warnings)
    loaded = len(seen.plugins.handlers) + len(seen.plugins.lookups)
    if loaded and not (seen.plugins.broken or seen.plugins.warnings or seen.plugins.problems):
        yield passed(f"all plugins load: {', '.join(_names(seen.plugins))}")


def _names(plugins: Plugins) -> Iterator[str]:
    yield from (f"handlers.{name}" for name in plugins.handlers)
    yield from (f"lookups.{name}" for name in plugins.lookups)


def handlers(seen: SeenConfiguration) -> Iterator[Finding]:
    """There is a handler."""
    if seen.settings is not None and not seen.settings.handlers:
        yield warned(
            "no handler is configured: events are kept but not delivered; "
            f"add a [handlers.NAME] table to {config_path()}"
        )


def permissions(seen: SeenConfiguration) -> Iterator[Finding]:
    """Only its owner and group can read the secrets, and change the configuration."""
    config = config_path().absolute()
    readable = dict(secret_files())
    if in_the_file := next(secret_settings(file_settings()), None):
        readable[config] = in_the_file
    found = []
    if _mode(config) & stat.S_IWOTH:
        found.append(
            failed(
                f"{config} can be changed by every user of this machine, who could have Offhook "
                f"run their code: chmod o-w {config}"
            )
        )
    for path, setting in sorted(readable.items()):
        if _mode(path) & stat.S_IROTH:
            found.append(
                warned(
                    f"{path} can be read by every user of this machine, and has secrets "
                    f"({setting}): chmod o-r {path}"
                )
            )
    yield from found
    if not found and _mode(config):
        yield passed("only its owner and group can read the secrets, and change the configuration")


def _mode(path: Path) -> int:
    """The permissions of a file; 0 if it does not exist or is in a folder that cannot be read."""
    try:
        return path.stat().st_mode
    except OSError:  # what needs it says why
        return 0


CHECKS = (settings, plugins, handlers, permissions)
