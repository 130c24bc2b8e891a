"""The operator's extensions that a list shows, and those that a person wants to set up."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from offhook.call import Kind
from offhook.errors import ConfigError
from offhook.extensions import ExtensionSettings, Name
from offhook.operations.phone_states import RegistrationState, phone_states
from offhook.provisioning.files import check_extension
from offhook_console.extension_setup import PlanLine, merged
from offhook_console.languages import gettext
from offhook_console.parts import ConsoleParts
from offhook_console.problem_details import ConsoleError

AT_ONCE = 20  # extensions that a person sets up by hand
LONGEST = 100  # characters of a label


@dataclass(frozen=True)
class ExtensionRow:
    """An extension, as shown.

    Attributes:
        phone: whether its phones are registered; None: that is not known.
        plan: what would be done on the PBX; empty: nothing differed.
    """

    name: Name
    settings: ExtensionSettings
    phone: bool | None
    plan: list[PlanLine]

    @property
    def pbx(self) -> str:
        return self.name[0]

    @property
    def number(self) -> str:
        return self.name[1]


@dataclass(frozen=True)
class ExtensionsFound:
    """The extensions that match, and how many there are of each sort."""

    rows: list[ExtensionRow]
    total: int
    differ: int
    gone: int


async def read_setup(
    parts: ConsoleParts, fields: Mapping[str, str]
) -> tuple[str, dict[str, ExtensionSettings]]:
    """The PBX and the extensions of a form, each with its settings and those given.

    Raises:
        ConsoleError: something is missing or wrong.
    """
    pbx = fields.get("pbx") or next(iter(parts.settings.pbx), "")
    if pbx not in parts.settings.pbx:
        raise ConsoleError(404, gettext("pbx: no PBX with this name is configured."))
    try:
        words = fields.get("extensions", "").replace(",", " ").split()
        numbers = [check_extension(each) for each in dict.fromkeys(words)]
    except ConfigError as error:
        raise ConsoleError(400, f"extensions: {error}.") from error
    if not 1 <= len(numbers) <= AT_ONCE:
        problem = gettext("extensions: name 1 to {most} of them, such as 0003*210.", most=AT_ONCE)
        raise ConsoleError(400, problem)
    for number in numbers:
        if not parts.setup.owns((pbx, number)):
            problem = gettext("extensions: {number} belongs to a tenant.", number=number)
            raise ConsoleError(400, problem)
    label, kind = fields.get("label", "").strip(), fields.get("kind", "")
    if len(label) > LONGEST or (kind and kind not in {*Kind}):
        raise ConsoleError(400, gettext("label or kind: is wrong."))
    given = {"label": label or None, "kind": Kind(kind) if kind else None}
    given = {name: value for name, value in given.items() if value is not None}
    await parts.feed.refresh_labels()
    known = parts.feed.labels
    return pbx, {number: merged(known.get((pbx, number)), **given) for number in numbers}


async def find_extensions(
    parts: ConsoleParts, query: Mapping[str, str], plans: Mapping[Name, list[PlanLine]]
) -> ExtensionsFound:
    """The operator's extensions that match, sorted.

    Args:
        query: `drift` is `yes`, `phone` is `gone`, and `q` a part of number, label or owner.
    """
    redis = parts.inbox.redis
    await parts.feed.refresh_labels()
    states = {pbx: await phone_states(redis, pbx) for pbx in parts.settings.pbx}
    # There may be 100,000: in a thread, so that others need not wait for them.
    return await asyncio.to_thread(_matching, parts, query, plans, states)


def _matching(
    parts: ConsoleParts,
    query: Mapping[str, str],
    plans: Mapping[Name, list[PlanLine]],
    states: Mapping[str, Mapping[str, RegistrationState]],
) -> ExtensionsFound:
    rows, total, differ, gone = [], 0, 0, 0
    words = query.get("q", "").strip().casefold()
    for name, settings in parts.feed.labels.items():
        if not parts.setup.owns(name):
            continue
        state = states[name[0]].get(name[1])
        phone = None if state is None else state.registered
        row = ExtensionRow(name, settings, phone, plans.get(name, []))
        total += 1
        differ += bool(row.plan)
        gone += row.phone is False
        texts = (name[1], settings.label or "", settings.owner or "")
        if (
            (query.get("drift") != "yes" or row.plan)
            and (query.get("phone") != "gone" or row.phone is False)
            and (not words or any(words in each.casefold() for each in texts))
        ):
            rows.append(row)
    return ExtensionsFound(rows, total, differ, gone)
