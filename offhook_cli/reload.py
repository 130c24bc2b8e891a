"""`offhook reload`: apply a changed configuration and code in all processes, or in none."""

from typing import Annotated

import typer

from offhook.connection import connect_rq
from offhook.errors import ConfigError
from offhook.operations.reload import ReloadFailed
from offhook.operations.reload import reload as reload_all
from offhook.operations.running_files import loaded_now
from offhook.plugins import check_all
from offhook.settings import load_settings
from offhook_cli.screen import fail, note


def reload(
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long it may take in all.")
    ] = 60.0,
) -> None:
    """Apply a changed configuration and code in all processes, or refuse it.

    Checks the configuration and the plugins, as `offhook doctor` does. Then every
    process of `offhook serve`, `offhook work` and `offhook console`, on all machines,
    loads them. If each of them can, all change to the new version: receivers and
    consoles at once, workers by new processes that take over from the old ones.
    Otherwise all run on as they were. No callback is refused meanwhile, and no
    delivery is cut short.

    Run it as the user and with the environment of the processes. A new version of
    Offhook itself needs a restart. Exits with 1 if not all processes run the new
    version in time, with 2 if it is wrong.

    \b
    Examples:
      offhook reload
      offhook reload --timeout 300
    """
    plugins = check_all()
    if problems := [*plugins.problems, *plugins.broken.values()]:
        raise ConfigError([*problems, "nothing has changed, and all processes run on as they were"])
    for sentence in plugins.warnings:
        note(f"! {sentence}")
    settings = load_settings()
    loaded = loaded_now(settings)
    try:
        with connect_rq(settings.redis_url) as redis:
            count = reload_all(redis, loaded, timeout, note)
    except ReloadFailed as error:
        fail(str(error))
    who = "1 process runs" if count == 1 else f"{count} processes run"
    typer.echo(f"{who} version {loaded.version}.")
