"""Jinja templates in the options of handlers. What they insert is escaped: it stays a value."""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from jinja2 import StrictUndefined, Template, TemplateError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from offhook import PermanentError

Escape = Callable[[Any], str]

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=True)


def fill(
    option: str, template: str, escape: Escape, stand_in: str | None = None, /, **values: Any
) -> str:
    """Render the template in an option.

    Args:
        escape: applied to every value that is inserted, once; not to what the filter `safe` returns
            or a macro of the template has rendered.
        stand_in: to check a template: inserted in place of every text.

    Raises:
        PermanentError: the template is not valid, or does not fit these values.
    """
    try:
        return str(_compiled(template, escape, stand_in).render(values))
    except (TemplateError, TypeError) as error:
        raise PermanentError(f"the event does not fit the template in {option}: {error}") from error


def in_json(value: Any) -> str:
    """Escape a value for JSON: a text for the inside of a string; true, false and null."""
    if value is None or isinstance(value, bool):
        return _json(value)
    return _json(str(value))[1:-1]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@cache
def _compiled(template: str, escape: Escape, stand_in: str | None) -> Template:
    # What is escaped is Markup, which leaves nothing to Jinja's own escaping, which is for HTML.
    def escaped(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(escape(value))  # noqa: S704

    @pass_context  # or Jinja escapes constants when it compiles
    def inserted(_: Context, value: Any) -> Markup:
        if stand_in is not None and isinstance(value, str) and not isinstance(value, Markup):
            value = stand_in
        return escaped(value)

    def to_json(value: Any, indent: int | None = None) -> str:
        return Markup(_json(value)) if escape is in_json else _json(value)  # noqa: S704

    environment = _environment.overlay(finalize=inserted)
    own = {"e": escaped, "escape": escaped, "tojson": to_json}
    environment.filters = _environment.filters | own
    return environment.from_string(template)
