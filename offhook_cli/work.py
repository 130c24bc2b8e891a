"""`offhook work`: the worker processes."""

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from offhook import logs
from offhook.errors import ConfigError
from offhook.settings import Settings, config_path, load_settings
from offhook_cli.screen import counted, note
from offhook_cli.server import tell_risks
from workers import supervisor

log = logging.getLogger("offhook")


def work(
    handler: Annotated[
        list[str] | None,
        typer.Option(
            help="Serve only this handler. May be repeated.",
            metavar="NAME",
            show_default="all of them",
        ),
    ] = None,
) -> None:
    """Run the workers: deliver events to the handlers.

    A process for each handler and partition, one for the redeliveries of
    each handler, and the scheduler. Stops on SIGTERM or Ctrl-C, when the
    deliveries in flight are done; a second Ctrl-C stops at once.

    \b
    Examples:
      offhook work
      offhook work --handler crm --handler chat
    """
    settings = load_settings()
    handlers = handler or []
    _check(settings, handlers)
    logs.log_to_stderr()
    beyond = supervisor.left_over(settings)
    if beyond:
        log.warning(
            "`partitions` was lowered to %s; what still waits in %s is delivered, too",
            settings.partitions,
            counted(len(beyond), "partition"),
        )
    needed = supervisor.needed(settings, beyond)
    names = supervisor.of_handlers(settings, handlers, beyond) if handlers else needed
    members = supervisor.Crew(settings, names)
    tell_risks(settings)
    _tell_unknown_pbxs(settings)
    note(_plan(names, needed))
    members.run()


def _check(settings: Settings, handlers: Sequence[str]) -> None:
    if not settings.handlers:
        raise ConfigError(
            "no handler is configured, so there is nothing to deliver to: add a [handlers.NAME] "
            f"table to {config_path()}; `offhook handlers` lists what is installed"
        )
    for name in handlers:
        if name not in settings.handlers:
            raise ConfigError(
                f"no handler is configured as {name!r}: there are {', '.join(settings.handlers)}"
            )


def _tell_unknown_pbxs(settings: Settings) -> None:
    """A slip in a PBX's name would keep every event from a handler, without a word."""
    for name, policy in settings.handlers.items():
        unknown = (policy.pbx or frozenset()) - settings.pbx.keys()
        if unknown and settings.pbx:  # none at all: nobody set one up through an API
            note(
                f"! handlers.{name}.pbx names {', '.join(sorted(unknown))}, and the PBXs that are "
                f"configured are: {', '.join(settings.pbx)}. Is that meant?"
            )


def _plan(names: Sequence[str], needed: Sequence[str]) -> str:
    missing = [name for name in needed if name not in names]
    if missing:
        return (
            f"runs {len(names)} of {len(needed)} processes this configuration needs; "
            f"not served here: {', '.join(missing)}"
        )
    return f"runs all that this configuration needs, {counted(len(names), 'worker')}: " + ", ".join(
        names
    )
