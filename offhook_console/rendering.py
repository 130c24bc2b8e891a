"""Pages: Jinja templates, with what every page shows."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from offhook_console import wording
from offhook_console.kept_english import change_words, plan_words, refusal_words
from offhook_console.languages import LANGUAGES, N_, catalogue, count, decimal, spoken
from offhook_console.people import Person, Right
from offhook_console.script_words import script_words

# The functions of `wording` that templates call.
_WORDING = ("date_of", "duration", "iso", "time_of", "weekday_of")
STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class NavEntry:
    """An entry of the navigation; the number beside it is `counts[key]`.

    Attributes:
        label, counted: messages, translated where they are shown.
        tab: whether a narrow screen shows it without asking for more.
    """

    key: str
    label: str
    icon: str
    right: Right
    counted: str = ""
    tab: bool = False

    @property
    def path(self) -> str:
        return f"/{self.key}"


NAVIGATION: Sequence[tuple[str, Sequence[NavEntry]]] = (
    (
        N_("Floor"),
        (
            NavEntry("now", N_("Now"), "now", Right.CALLS, tab=True),
            NavEntry("calls", N_("Calls"), "call", Right.CALLS, tab=True),
            NavEntry("missed", N_("Missed"), "missed", Right.CALLS, N_("open"), tab=True),
            NavEntry("me", N_("My phone"), "headset", Right.CALLS),
        ),
    ),
    (
        N_("Delivery"),
        (
            NavEntry(
                *("handlers", N_("Handlers"), "handlers", Right.DELIVERIES),
                counted=N_("with an open circuit"),
                tab=True,
            ),
            NavEntry(
                "dead-letters", N_("Dead letters"), "mail-x", Right.DELIVERIES, N_("dead letters")
            ),
            NavEntry("quarantine", N_("Quarantine"), "shield", Right.DELIVERIES, N_("callbacks")),
        ),
    ),
    (
        N_("Phone system"),
        (
            NavEntry("extensions", N_("Extensions"), "grid", Right.DELIVERIES),
            NavEntry("proof", N_("Proof"), "scale", Right.DELIVERIES),
        ),
    ),
    (
        N_("Administration"),
        (
            NavEntry("people", N_("People"), "people", Right.PEOPLE),
            NavEntry("audit", N_("Audit log"), "history", Right.REPAIR),
        ),
    ),
)


@cache
def static_version() -> str:
    """Changes with the files in `static/`, so that browsers may keep them for good."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def environment(answer_within: float) -> Environment:
    """The templates, with the functions that they call.

    Args:
        answer_within: seconds after which a call that rings is marked as late.
    """
    made = Environment(
        loader=PackageLoader("offhook_console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.newstyle_gettext = True  # type: ignore[attr-defined]
    made.globals.update(
        _=_message,
        gettext=_message,
        ngettext=_counted,
        pgettext=_of_context,
        count=count,
        decimal=decimal,
        language=spoken,
        languages=LANGUAGES,
        late=f"{answer_within:g}",
        script_words=script_words,
        static=f"/static/{static_version()}",
        navigation=NAVIGATION,
        now=lambda: datetime.now(UTC),
        **{name: getattr(wording, name) for name in _WORDING},
    )
    made.filters["short"] = wording.short
    made.filters["took"] = wording.took
    made.filters["code"] = _code
    made.filters["plan_words"] = plan_words
    made.filters["change_words"] = change_words
    made.filters["refusal_words"] = refusal_words
    return made


# What templates call in place of Jinja's own, which takes three times as long.
def _message(message: str, **values: Any) -> Markup:
    """A message with these values in place of its `%(names)s`."""
    text = Markup(catalogue().gettext(message))  # noqa: S704
    return text % values if "%" in message else text


def _of_context(context: str, message: str) -> Markup:
    """A message that means something else in another context."""
    return Markup(catalogue().pgettext(context, message))  # noqa: S704


def _counted(singular: str, plural: str, num: int, **values: Any) -> Markup:
    """A message that depends on a number, which it names `%(num)s`, with separators."""
    message = Markup(catalogue().ngettext(singular, plural, num))  # noqa: S704
    return message % {"num": count(num), **values}


def _code(text: str) -> Markup:
    """A sentence whose commands are in backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


class Pages:
    """Renders pages and fragments.

    Args:
        counts: the numbers beside the entries of a person's navigation.
        answer_within: seconds after which a call that rings is marked as late.
    """

    def __init__(
        self, counts: Callable[[Person], dict[str, int]], answer_within: float = 20.0
    ) -> None:
        self._templates = environment(answer_within)
        self._counts = counts

    def page(
        self, request: Request, person: Person, template: str, status: int = 200, **context: Any
    ) -> HTMLResponse:
        """A whole page for a person."""
        theme = request.cookies.get("theme")
        mine = [each for _, group in NAVIGATION for each in group if person.may(each.right)]
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        html = self.html(
            template,
            theme=theme if theme in ("light", "dark") else None,
            person=person,
            counts=self._counts(person),
            path=request.url.path,
            here=here,
            nav_tabs=[each for each in mine if each.tab],
            nav_more=[each for each in mine if not each.tab],
            Right=Right,
            **context,
        )
        return HTMLResponse(html, status)

    def html(self, template: str, **context: Any) -> str:
        """The text of a template."""
        return self._templates.get_template(template).render(context)

    def macro(self, template: str, name: str, *arguments: Any) -> str:
        """The text of one macro of a template: a fragment of a page."""
        return str(getattr(self._templates.get_template(template).module, name)(*arguments))
