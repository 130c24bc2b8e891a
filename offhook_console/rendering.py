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
from offhook_console.people import Person, Right

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class NavEntry:
    """An entry of the navigation; the number beside it is `counts[key]`.

    Attributes:
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
        "Floor",
        (
            NavEntry("now", "Now", "now", Right.CALLS, tab=True),
            NavEntry("calls", "Calls", "call", Right.CALLS, tab=True),
            NavEntry("missed", "Missed", "missed", Right.CALLS, "open", tab=True),
            NavEntry("me", "My phone", "headset", Right.CALLS),
        ),
    ),
    (
        "Delivery",
        (
            NavEntry(
                *("handlers", "Handlers", "handlers", Right.DELIVERIES, "with an open circuit"),
                tab=True,
            ),
            NavEntry("dead-letters", "Dead letters", "mail-x", Right.DELIVERIES, "dead letters"),
            NavEntry("quarantine", "Quarantine", "shield", Right.DELIVERIES, "callbacks"),
        ),
    ),
    (
        "Phone system",
        (
            NavEntry("extensions", "Extensions", "grid", Right.DELIVERIES),
            NavEntry("proof", "Proof", "scale", Right.DELIVERIES),
        ),
    ),
    (
        "Administration",
        (
            NavEntry("people", "People", "people", Right.PEOPLE),
            NavEntry("audit", "Audit log", "history", Right.REPAIR),
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


def environment() -> Environment:
    """The templates, with the functions that they call."""
    made = Environment(
        loader=PackageLoader("offhook_console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        static=f"/static/{static_version()}",
        navigation=NAVIGATION,
        now=lambda: datetime.now(UTC),
        **{name: getattr(wording, name) for name in ("count", "counted", "duration", "iso")},
    )
    made.filters["short"] = wording.short
    made.filters["took"] = wording.took
    made.filters["code"] = _code
    return made


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
        self._templates = environment()
        self._templates.globals["late"] = f"{answer_within:g}"
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
