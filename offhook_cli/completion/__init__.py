"""Shell completion: answers the scripts that `offhook --install-completion` installs.

It imports neither the commands nor their libraries, which would take longer than a person waits:
the commands are in `commands.json`, which `make completion` writes (see `completion_file`).
"""

import os
import sys
from collections.abc import Callable

from offhook_cli.completion import shells
from offhook_cli.completion.tree import read
from offhook_cli.completion.words import candidates

ASKED = "_OFFHOOK_COMPLETE"  # by the shell's script

_SHELLS: dict[str, Callable[[shells.Find], tuple[list[str], int]]] = {
    "complete_bash": shells.bash,
    "complete_zsh": shells.zsh,
    "complete_fish": shells.fish,
}


def complete() -> None:
    """Answer a shell and exit, if one asks. Nothing may disturb the line that a person types."""
    answer = _SHELLS.get(os.environ.get(ASKED, ""))
    if answer is None:
        return
    try:
        lines, status = answer(lambda words, begun: candidates(read(), words, begun))
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except Exception:  # noqa: BLE001 - whatever is wrong, the command itself will say
        status = 1
    sys.exit(status)
