"""`offhook work`: run the workers."""

import logging
from typing import Annotated

import typer

from offhook import logs
from offhook.errors import ConfigError
from offhook.plugins import load_checked
from offhook.settings import Settings, config_path
from offhook_cli import reloading
from offhook_cli.screen import counted, note
from offhook_cli.startup import check_server
from workers import supervisor

log = logging.getLogger("offhook")


def work(
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="For development: start anew when the configuration or a plugin changes.",
        ),
    ] = False,
) -> None:
    """Run the workers: deliver events to the handlers.

    Starts processes that serve the handlers (`processes`, one per core), one
    for each handler or pool with `process` set, one for periodic jobs, and the
    scheduler. On SIGTERM or Ctrl-C it finishes the deliveries in flight, then
    stops; a second Ctrl-C stops at once. All processes run the configuration
    and the plugins as they were at the start.

    \b
    Examples:
      offhook work
      offhook work --reload
    """
    if reload:
        reloading.work()
        return
    settings = load_checked()
    if not settings.handlers:
        raise ConfigError(
            f"no handler is configured: add a [handlers.NAME] table to {config_path()}; "
            "`offhook handlers` lists the installed ones"
        )
    logs.log_to_stderr()
    members = supervisor.Supervisor(settings)
    check_server(settings, stop=True)
    _warn_unknown_pbxs(settings)
    names = [each.name for each in supervisor.required_processes(settings)]
    note(f"runs {counted(len(names), 'worker')}: {', '.join(names)}")
    members.run()


def _warn_unknown_pbxs(settings: Settings) -> None:
    """Warn about an unknown PBX: a typo would silently keep every event from a handler."""
    for name, policy in settings.handlers.items():
        unknown = (policy.pbx or frozenset()) - settings.pbx.keys()
        if unknown and settings.pbx:  # without any PBX, the URLs were registered by hand
            note(
                f"! handlers.{name}.pbx names {', '.join(sorted(unknown))}; "
                f"configured: {', '.join(settings.pbx)}"
            )
