"""Writes `commands.json` from the commands themselves: `make completion`."""

import json
import sys
from collections.abc import Iterator
from typing import Any, cast

import typer

from offhook import queues
from offhook.event import CALLBACKS
from offhook.inbox import keys
from offhook_cli import COMMANDS, app, load
from offhook_cli.completion.tree import FILE

# What completes the options and the arguments of these names, in all commands or in one.
_EVENTS = [str(each) for each in CALLBACKS]
_OPTIONS: dict[str, str | list[str]] = {
    "--call": "calls",
    "--events": "events,",
    "--extension": "extensions",
    "--extensions": "extensions,",
    "--handler": "handlers",
    "--handlers": "handlers,",
    "--owner": "",
    "--pbx": "pbxs",
    "--queue": "extensions",
    "--phones": "extensions,",
}
_OF_ONE: dict[tuple[str, str], str | list[str]] = {
    ("agents", "AGENT"): "extensions",
    ("agents", "QUEUE"): "extensions",
    ("call", "ID"): "calls",
    ("dead", "ID"): "dead_letters",
    ("forget", "NAME"): "forgotten",
    ("handlers preview", "NAME"): "handlers",
    ("handlers show", "NAME"): "plugins",
    ("pbx events", "--type"): _EVENTS,
    ("quarantine", "ID"): "refused",
}
_ARGUMENTS = {"EXTENSION": "extensions", "PBX": "pbxs"}
_DEFAULTS = {"setup": "setup extensions", "url": "url print"}


def text() -> str:
    """The text of the file."""
    commands = dict(_described("", typer.main.get_command(app)))
    for name in COMMANDS:
        commands |= dict(_described(name, load(name)))
    lines = [f'"{name}": {_command(each)}' for name, each in commands.items()]
    rest = {"defaults": _DEFAULTS, "keys": _keys()}
    return f'{json.dumps(rest, indent=1)[:-2]},\n "commands": {{\n' + ",\n".join(lines) + "\n}}\n"


def _keys() -> dict[str, str]:
    number = cast("int", "%d")
    return {
        "calls": keys.calls(number),
        "dead_letters": f"rq:failed:{queues.dead_queue('%s')}",
        "extensions": keys.EXTENSIONS,
        "forgotten": keys.known(0),
        "refused": keys.QUARANTINE,
    }


def _command(described: dict[str, Any]) -> str:
    lines = [f"  {json.dumps(each)}" for each in described["parameters"]]
    head = f'{{"help": {json.dumps(described["help"])}, "parameters": ['
    return head + ("\n" + ",\n".join(lines) if lines else "") + "]}"


def _described(path: str, command: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """A command and those below it, by their words."""
    context = typer.Context(command, info_name=path)
    parameters = [_parameter(path, each, context) for each in command.get_params(context)]
    if path or not isinstance(command, typer.core.TyperGroup):
        help_ = COMMANDS.get(path) or command.get_short_help_str(200)
    else:
        help_ = ""
    yield path, {"help": help_, "parameters": parameters}
    if path:
        for name, each in getattr(command, "commands", {}).items():
            yield from _described(f"{path} {name}", each)


def _parameter(path: str, parameter: Any, context: typer.Context) -> dict[str, Any]:
    is_option = parameter.param_type_name == "option"
    described: dict[str, Any] = {}
    if is_option:
        described["names"] = [*parameter.opts, *parameter.secondary_opts]
        described["help"] = (parameter.help or "").partition(". ")[0].rstrip(".")
    values = None if getattr(parameter, "is_flag", False) else _values(path, parameter, context)
    if values != "":
        described["values"] = values
    if getattr(parameter, "multiple", False) or parameter.nargs == -1:
        described["many"] = True
    return described


def _values(path: str, parameter: Any, context: typer.Context) -> str | list[str]:
    for name in (*parameter.opts, parameter.metavar):
        for (where, one), values in _OF_ONE.items():
            if one == name and f"{path} ".startswith(f"{where} "):
                return values
        if parameter.param_type_name == "option" and name in _OPTIONS:
            return _OPTIONS[name]
    choices = [each.value for each in parameter.shell_complete(context, "") if each.value]
    if choices:
        return choices
    return "" if parameter.param_type_name == "option" else _ARGUMENTS.get(parameter.metavar, "")


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
    sys.stdout.write(f"Written: {FILE}\n")
