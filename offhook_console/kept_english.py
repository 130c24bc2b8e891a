"""Sentences that are kept in English, in the language that is spoken."""

import re
from collections.abc import Sequence
from functools import cache

from offhook.operations.audit import SENTENCES, AuditEntry
from offhook_console.languages import N_, count, gettext, ngettext

# What a plan would do to an extension.
_PLAN = (
    N_("create {types}"),
    N_("enable {types}"),
    N_("delete {types}"),
    N_("update {what} of {types}"),
    N_("{number} phone call events of other software: unchanged"),
)
# Why a callback was refused.
REFUSALS = (
    N_("A callback carries no files."),
    N_("A callback is a GET or a POST."),
    N_("A callback may have {most} parameters."),
    N_("A parameter may have {most} characters."),
    N_("EventType must be dial-in, dial-out, hangup, or answer with a CallFlow of in or out."),
    N_("Query and body may have {most} bytes each."),
    N_("The URL must name one of: {types}."),
    N_("The body ended too early."),
    N_("The body is not a form."),
    N_("The body took longer than {most} seconds."),
    N_("The callback has no CallID."),
    N_("The multipart body ends too early."),
    N_("The multipart body is malformed."),
)
# Why workers set an event aside.
UNREADABLE = (
    N_("an event in the inbox that cannot be read: {error}"),
    N_("an event parked for {name} that cannot be read: {error}"),
    N_("an event about trouble that cannot be read: {error}"),
)


def plan_words(said: str) -> str:
    """A line of a plan, such as `update url of answer-in`."""
    return _translated(said, _PLAN) or said


def refusal_words(said: str) -> str | None:
    """Why a callback was refused; None: no reason that is known here, so it stays in English."""
    return _translated(said, (*REFUSALS, *UNREADABLE))


def change_words(entry: AuditEntry) -> str | None:
    """What an entry of the audit log says; None: it is of another version, and stays in English."""
    forms = SENTENCES.get(entry.change or "")
    if forms is None:
        return None
    values = {
        name: count(each) if isinstance(each, int) else each
        for name, each in entry.details.items()
        if name != "number"
    }
    try:
        if len(forms) == 1:
            return gettext(forms[0]).format(**values)
        return ngettext(forms[0], forms[-1], int(entry.details["number"]), **values)
    except (KeyError, ValueError):  # another version has other details
        return None


def _translated(said: str, messages: Sequence[str]) -> str | None:
    for message in messages:
        found = _pattern(message).fullmatch(said)
        if found is not None:
            return gettext(message).format(**found.groupdict())
    return None


@cache
def _pattern(message: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", message)  # each second one is a name
    return re.compile(
        "".join(f"(?P<{part}>.+)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
    )
