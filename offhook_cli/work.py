"""`offhook work`: run the workers."""

import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from offhook import logs
from offhook.errors import ConfigError
from offhook.plugins import load_checked
from offhook.settings import Settings, config_path
from offhook_cli.screen import counted, note
from offhook_cli.server import check_server
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

    Starts one process per handler and partition, one per handler for
    redeliveries, and the scheduler. On SIGTERM or Ctrl-C it finishes the
    deliveries in flight, then stops; a second Ctrl-C stops at once.

    \b
    Examples:
      offhook work
      offhook work --handler crm --handler chat
    """
    settings = load_checked()
    handlers = handler or []
    _check(settings, handlers)
    logs.log_to_stderr()
    beyond = supervisor.leftover_partitions(settings)
    if beyond:
        log.warning(
            "`partitions` was lowered to %s; events still waiting in %s are delivered, too",
            settings.partitions,
            counted(len(beyond), "partition"),
        )
    needed = supervisor.required_processes(settings, beyond)
    names = supervisor.required_processes(settings, beyond, handlers)
    members = supervisor.Supervisor(settings, names)
    check_server(settings, stop=True)
    _warn_unknown_pbxs(settings)
    note(_plan(names, needed))
    members.run()


def _check(settings: Settings, handlers: Sequence[str]) -> None:
    if not settings.handlers:
        raise ConfigError(
            f"no handler is configured: add a [handlers.NAME] table to {config_path()}; "
            "`offhook handlers` lists the installed ones"
        )
    for name in handlers:
        if name not in settings.handlers:
            raise ConfigError(
                f"no handler is configured as {name!r}; configured: {', '.join(settings.handlers)}"
            )


def _warn_unknown_pbxs(settings: Settings) -> None:
    """Warn about an unknown PBX: a typo would silently keep every event from a handler."""
    for name, policy in settings.handlers.items():
        unknown = (policy.pbx or frozenset()) - settings.pbx.keys()
        if unknown and settings.pbx:  # without any PBX, the URLs were registered by hand
            note(
                f"! handlers.{name}.pbx names {', '.join(sorted(unknown))}; "
                f"configured: {', '.join(settings.pbx)}"
            )


def _plan(names: Sequence[str], needed: Sequence[str]) -> str:
    missing = [name for name in needed if name not in names]
    if missing:
        return (
            f"runs {len(names)} of the {len(needed)} processes this configuration needs; "
            f"not served here: {', '.join(missing)}"
        )
    return f"runs all {counted(len(names), 'worker')} this configuration needs: " + ", ".join(names)
