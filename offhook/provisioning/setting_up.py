"""Setting extensions up: the changes in words, and making them, for a command and the console."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from offhook.extensions import Extensions, ExtensionSettings
from offhook.provisioning.api import sentence
from offhook.provisioning.plan import Action
from offhook.provisioning.registrar import ByHand, Registrar, SetupOutcome, Survey
from unifiedapi.errors import UnifiedApiError

SIGNS: Mapping[Action, str] = {
    Action.CREATE: "+",
    Action.UPDATE: "~",
    Action.ENABLE: "~",
    Action.LEAVE: "=",
    Action.DELETE: "-",
}


def changes_on_pbx(survey: Survey) -> list[tuple[Action, str]]:
    """Describe the changes on the PBX: `create dial-in, hangup`, `update url of answer-in`."""
    lines: dict[tuple[Action, str], list[str]] = {}
    for change in survey.changes:
        if change.action is not Action.LEAVE:
            differs = f" {', '.join(change.differs)} of" if change.action is Action.UPDATE else ""
            lines.setdefault((change.action, differs), []).append(change.type.label)
    return [
        (action, f"{action}{differs} {', '.join(types)}")
        for (action, differs), types in lines.items()
    ]


def changes_here(there: ExtensionSettings | None, survey: Survey) -> list[str]:
    """Describe the stored settings of an extension that will change.

    Args:
        there: those that are stored; None: it is not set up.
    """
    wanted = survey.target.settings
    if wanted is None:
        return [] if there is None else ["forget"]
    was = there or ExtensionSettings()
    new = [
        f"{field.name}: {_shown(field.name, getattr(wanted, field.name))}"
        for field in fields(ExtensionSettings)
        if getattr(wanted, field.name) != getattr(was, field.name)
    ]
    return new if new or there else ["remember"]


async def make_changes(
    extensions: Extensions,
    registrar: Registrar | ByHand,
    surveys: Sequence[Survey],
    done: Callable[[], object],
) -> list[SetupOutcome]:
    """Store the settings of these extensions of one PBX, and make the changes there.

    Args:
        done: called after each extension.

    Returns:
        The outcomes, in the order of `surveys`.
    """
    pbx = registrar.pbx
    targets = [survey.target for survey in surveys]
    await extensions.change(
        {(pbx, each.extension): each.settings for each in targets if each.settings is not None}
    )
    outcomes = await registrar.carry_out(surveys, done)
    gone = [
        (pbx, target.extension)
        for target, outcome in zip(targets, outcomes, strict=True)
        if target.settings is None and outcome.error is None
    ]
    await extensions.change({}, gone)
    return outcomes


async def keep_phones(
    extensions: Extensions, registrar: Registrar | ByHand, users: Iterable[str]
) -> str | None:
    """Store which phones these users of a PBX have: a short number that is dialled may be one.

    Returns:
        What went wrong, as a sentence; None if nothing did.
    """
    try:
        if isinstance(registrar, Registrar):
            for user in sorted({*users}):
                await extensions.add_phones(registrar.pbx, await registrar.phones(user))
    except UnifiedApiError as error:
        return f"{registrar.pbx}: its phones cannot be listed: {sentence(error)}"
    return None


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "all" if name == "handlers" else "none"
    return str(value) if isinstance(value, str) else ", ".join(value) or "none"
