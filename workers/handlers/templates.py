"""Jinja templates in the options of handlers."""

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from offhook import PermanentError

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_environment.policies["json.dumps_function"] = lambda value, **_: msgspec.json.encode(
    value
).decode()


def fill(
    option: str, template: str, finalize: Callable[[Any], Any] | None = None, /, **values: Any
) -> str:
    """Render the template in an option.

    Args:
        finalize: applied to every value before it is inserted.

    Raises:
        PermanentError: the template is not valid, or does not fit these values.
    """
    try:
        return _compiled(template, finalize).render(values)
    except (TemplateError, TypeError) as error:
        raise PermanentError(f"the event does not fit the template in {option}: {error}") from error


@cache
def _compiled(template: str, finalize: Callable[[Any], Any] | None) -> Template:
    environment = _environment.overlay(finalize=finalize) if finalize else _environment
    return environment.from_string(template)
