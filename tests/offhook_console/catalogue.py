"""Updates the catalogues of the console's messages: `python -m tests.offhook_console.catalogue`.

Extracts the messages of the code and the templates, merges them into each `console.po`, and
compiles that. A catalogue says itself which messages have no translation yet.
"""

import io
from collections.abc import Iterable
from pathlib import Path

from babel.messages import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from offhook.call import UNKNOWN, Kind
from offhook.operations.audit import SENTENCES
from offhook.operations.filter_question import SPANS
from offhook_console.languages import ENGLISH, FOLDER, LANGUAGES

SOURCE = FOLDER.parent
METHODS = [("templates/**.html", "jinja2.ext.babel_extract"), ("**.py", "python")]
OPTIONS = {
    "templates/**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"},
}
# Words of modules that other programs use, too, which are translated where they are shown.
FROM_BELOW: dict[str, Iterable[str | tuple[str, ...]]] = {
    "../offhook/call.py": [*UNKNOWN.values(), *Kind],
    "../offhook/operations/audit.py": SENTENCES.values(),
    "../offhook/operations/filter_question.py": SPANS.values(),
}


def extracted() -> Catalog:
    """All messages of the console."""
    found = Catalog(project="Offhook", charset="utf-8")
    for name, _, message, comments, context in extract_from_dir(
        SOURCE, METHODS, OPTIONS, DEFAULT_KEYWORDS
    ):
        found.add(message, locations=[(name, 0)], auto_comments=comments, context=context)
    for name, messages in FROM_BELOW.items():
        for message in messages:
            forms = (str(message),) if isinstance(message, str) else message
            found.add(forms[0] if len(forms) == 1 else forms, locations=[(name, 0)])
    return found


def catalogue(code: str) -> Catalog:
    """The catalogue of a language."""
    with po_file(code).open("rb") as file:
        return read_po(file, locale=code)


def compiled(messages: Catalog) -> bytes:
    """A catalogue as gettext reads it."""
    made = io.BytesIO()
    write_mo(made, messages)
    return made.getvalue()


def po_file(code: str) -> Path:
    """The file with the translations of a language."""
    return FOLDER / code / "LC_MESSAGES" / "console.po"


def update(code: str) -> Catalog:
    """Bring the catalogue of a language up to date, and compile it."""
    path = po_file(code)
    messages = catalogue(code)
    messages.update(extracted(), no_fuzzy_matching=True, update_creation_date=False)
    messages.obsolete.clear()
    with path.open("wb") as file:
        write_po(file, messages, width=100, include_lineno=False, sort_by_file=True)
    path.with_suffix(".mo").write_bytes(compiled(messages))
    return messages


def untranslated(messages: Catalog) -> list[str]:
    """The messages of a catalogue that have no translation, or an unsure one."""
    return [str(each.id) for each in messages if each.id and (each.fuzzy or not all(strings(each)))]


def strings(message: Message) -> list[str]:
    """The translation, in all its forms."""
    return [message.string] if isinstance(message.string, str) else list(message.string or [""])


if __name__ == "__main__":
    for language in LANGUAGES:
        if language != ENGLISH:
            missing = untranslated(update(language))
            print(f"{language}: {len(missing)} without a translation", *missing, sep="\n")
