"""`offhook work`: run the workers."""

from typing import Annotated

import typer

from offhook.errors import ConfigError
from offhook.settings import Settings
from offhook_cli import reloading
from offhook_cli.screen import counted, note
from offhook_cli.startup import check_inbox, check_server, on_hangup, start_logging
from workers.keeper import Keeper


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
    and the plugins as they were at the start or at the last `offhook reload`,
    which SIGHUP runs, too.

    \b
    Examples:
      offhook work
      offhook work --reload
    """
    if reload:
        reloading.work()
        return
    start_logging()
    keeper = Keeper(on_hangup())
    try:
        check_server(keeper.settings, stop=True)
        check_inbox(keeper.settings)
    except ConfigError:
        keeper.give_up()
        raise
    _warn_unknown_pbxs(keeper.settings)
    keeper.take_signals()
    names = keeper.names
    note(f"runs {counted(len(names), 'worker')}: {', '.join(names)}")
    if keeper.run():
        raise typer.Exit(1)


def _warn_unknown_pbxs(settings: Settings) -> None:
    """Warn about an unknown PBX: a typo would silently keep every event from a handler."""
    for name, policy in settings.handlers.items():
        unknown = (policy.pbx or frozenset()) - settings.pbx.keys()
        if unknown and settings.pbx:  # without any PBX, the URLs were registered by hand
            note(
                f"! handlers.{name}.pbx names {', '.join(sorted(unknown))}; "
                f"configured: {', '.join(settings.pbx)}"
            )
