"""What a plan would do to an extension, in the language that is spoken: it is kept in English."""

import re

from offhook_console.languages import gettext

_ON_PBX = re.compile(r"(create|enable|delete|update) (?:(.+) of )?([a-z, -]+)")
_OTHERS = re.compile(r"(\d+) phone call events of other software: unchanged")


def plan_words(said: str) -> str:
    """A line of a plan, such as `update url of answer-in`."""
    if others := _OTHERS.fullmatch(said):
        message = gettext("{number} phone call events of other software: unchanged")
        return message.format(number=others[1])
    found = _ON_PBX.fullmatch(said)
    if found is None:
        return said
    action, what, types = found.groups()
    message = {
        "create": gettext("create {types}"),
        "enable": gettext("enable {types}"),
        "delete": gettext("delete {types}"),
        "update": gettext("update {what} of {types}"),
    }[action]
    return message.format(types=types, what=what)
