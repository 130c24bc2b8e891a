"""Arguments that commands of `offhook setup` share."""

from typing import Annotated

import typer

from offhook.errors import ConfigError
from offhook.provisioning.files import check_extension

COMMANDS = ("show", "export", "apply", "check")

Numbers = Annotated[
    list[str] | None,
    typer.Argument(help="Extensions, such as 0003*210.", metavar="EXTENSION", show_default=False),
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
