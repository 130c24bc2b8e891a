"""Patterns of extensions, such as `0003**` for all of an organisation."""

import re
from collections.abc import Iterable
from fnmatch import translate


def compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """What matches an extension that one of the patterns describes; None without patterns.

    `*` and `?` are wildcards, but for the `*` inside an extension: `0003*210` and `0003*2??` have
    a literal star, `0003**` begins with one, `*` has none.
    """
    each = [translate(_literal_star(pattern)) for pattern in patterns]
    return re.compile("|".join(each)) if each else None


def _literal_star(pattern: str) -> str:
    organisation, star, rest = pattern.partition("*")
    if star and organisation.isdigit() and rest:
        return f"{organisation}[*]{rest}"
    return pattern
