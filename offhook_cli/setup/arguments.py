"""Arguments that commands of `offhook setup` share."""

from typing import Annotated

import typer

from offhook.errors import ConfigError
from offhook.provisioning.files import check_extension
from offhook_cli import completion

COMMANDS = ("show", "export", "apply", "check")


def _values(context: typer.Context) -> list[str]:
    """The extensions; at first also the commands, one of which may follow `offhook setup`."""
    may_be_command = context.info_name == "setup" and not context.params.get("numbers")
    return [*(COMMANDS if may_be_command else ()), *completion.extensions()]


Numbers = Annotated[
    list[str] | None,
    typer.Argument(
        help="Extensions, such as 0003*210.",
        metavar="EXTENSION",
        show_default=False,
        autocompletion=_values,
    ),
]
AtOnce = Annotated[
    int,
    typer.Option(
        "--at-once", min=1, max=100, metavar="N", help="Extensions processed concurrently."
    ),
]


def check_numbers(words: list[str] | None) -> list[str]:
    """Check that the arguments are extensions, and drop repeats.

    Raises:
        ConfigError: one is not.
    """
    for word in words or ():
        if word.isalpha():
            raise ConfigError(
                f"{word!r} is neither an extension, such as 0003*210, nor a command: "
                f"{', '.join(COMMANDS)}"
            )
    return [check_extension(word) for word in dict.fromkeys(words or ())]
