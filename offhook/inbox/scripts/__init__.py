"""The Lua scripts of the inbox: NAME.lua, each of which runs in Redis as one step.

The line `-- include NAME.lua` in a script stands for the text of that file.
"""

import re
from functools import cache
from importlib.resources import files


@cache
def script(name: str) -> str:
    """The text of a script."""
    text = (files(__package__) / f"{name}.lua").read_text()
    return re.sub(r"^-- include (\w+)\.lua$", lambda match: script(match[1]), text, flags=re.M)
