"""The languages of the pages: which one a request is answered in, and the words of each.

The source strings are English. What is rendered for a request, or for the listeners with one view,
is rendered while its language is spoken.
"""

import gettext as catalogues
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from starlette.requests import HTTPConnection

FOLDER = Path(__file__).parent / "locale"
ENGLISH = "en"
COOKIE = "lang"
_MOST = 20  # languages of a browser that are looked at


class Language(NamedTuple):
    """A language, by its own name, and how it writes numbers."""

    name: str
    thousands: str
    decimal: str


LANGUAGES: Mapping[str, Language] = {
    ENGLISH: Language("English", ",", "."),
    "de": Language("Deutsch", ".", ","),
}
CATALOGUES: dict[str, catalogues.NullTranslations] = {
    code: catalogues.translation("console", FOLDER, [code], fallback=code == ENGLISH)
    for code in LANGUAGES
}
_spoken: ContextVar[str] = ContextVar("language", default=ENGLISH)


def spoken() -> str:
    """The code of the language that is spoken."""
    return _spoken.get()


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """Speak one of `LANGUAGES` in this context."""
    before = _spoken.set(code)
    try:
        yield
    finally:
        _spoken.reset(before)


def catalogue() -> catalogues.NullTranslations:
    """The messages of the language that is spoken."""
    return CATALOGUES[_spoken.get()]


def gettext(message: str, **values: object) -> str:
    """A message in the language that is spoken, with these values in place of its `{names}`."""
    text = catalogue().gettext(message)
    return text.format(**values) if values else text


def ngettext(singular: str, plural: str, number: int, **values: object) -> str:
    """The same for a message that depends on a number: `{number}`, as `count` writes it."""
    text = catalogue().ngettext(singular, plural, number)
    return text.format(number=count(number), **values)


def pgettext(context: str, message: str) -> str:
    """A message that means something else in another context."""
    return catalogue().pgettext(context, message)


def count(number: int) -> str:
    """`4,021`."""
    return f"{number:,}".replace(",", LANGUAGES[spoken()].thousands)


def decimal(number: str) -> str:
    """A number with a decimal point, as it is written in the language that is spoken."""
    return number.replace(".", LANGUAGES[spoken()].decimal)


def N_(message: str) -> str:
    """Mark a message that is translated where it is shown."""
    return message


def language_of(request: HTTPConnection) -> str:
    """The language in which a request is answered.

    The URL says it for a wall; a fragment is in the language of its page; a person chooses one
    with a cookie; otherwise the browser's first that there is. Programs are answered in English.
    """
    if request.url.path.startswith("/api/") or request.url.path.endswith(".csv"):
        return ENGLISH
    for said in (
        request.query_params.get("lang"),
        request.headers.get("offhook-language"),
        request.cookies.get(COOKIE),
    ):
        if said and said in LANGUAGES:
            return said
    return _accepted(request.headers.get("accept-language", ""))


def _accepted(header: str) -> str:
    """The first of our languages in a header such as `de-CH, de;q=0.9, en;q=0.5`."""
    best, most = ENGLISH, 0.0
    for each in header.split(",")[:_MOST]:
        tag, _, weight = each.partition(";")
        code = tag.strip().partition("-")[0].lower()
        quality = _quality(weight)
        if code in LANGUAGES and quality > most:
            best, most = code, quality
    return best


def _quality(text: str) -> float:
    name, _, value = text.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0
