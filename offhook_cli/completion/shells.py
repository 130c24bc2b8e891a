"""How each shell asks, and what it expects: the protocols of the scripts that typer installs."""

import os
import re
import shlex
from collections.abc import Callable, Sequence

from offhook_cli.completion.words import Candidate

Answer = tuple[list[str], int]  # lines, and the exit code
Find = Callable[[Sequence[str], str], list[Candidate]]


def bash(find: Find) -> Answer:
    """One value per line. Bash takes it as if it were typed, so wildcards are escaped."""
    line, position = os.environ["COMP_WORDS"], int(os.environ["COMP_CWORD"])
    words = _split(line)
    begun = words[position] if position < len(words) else ""
    found = [each.value for each in _harmless(find(words[1:position], begun))]
    is_quoted = re.search(r"""(^|\s)['"][^'"\s]*$""", line)
    return found if is_quoted else [each.replace("*", r"\*") for each in found], 0


def zsh(find: Find) -> Answer:
    """An action for `_arguments`; zsh escapes by itself."""
    found = "\n".join(map(_for_zsh, _harmless(find(*_line()))))
    return [f"_arguments '*: :(({found}))'" if found else "_files"], 0


def _for_zsh(each: Candidate) -> str:
    plain = re.sub(r"[^\w ,.;()<>|/+-]", "", each.help, flags=re.ASCII)
    return f'"{each.value}":"{plain}"' if plain else f'"{each.value}"'


def fish(find: Find) -> Answer:
    """A value, a tab and its help per line. First fish asks whether there are any."""
    found = _harmless(find(*_line()))
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return [], 0 if found else 1
    return [f"{each.value}\t{each.help}" if each.help else each.value for each in found], 0


def _harmless(found: list[Candidate]) -> list[Candidate]:
    """Keep what a shell takes as it is: a PBX, or who knows its URLs, may send any CallID."""
    return [each for each in found if re.fullmatch(r"[\w.,:=@*/+-]+", each.value, re.ASCII)]


def _line() -> tuple[list[str], str]:
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)[1:]
    return (words[:-1], words[-1]) if words and not line[-1:].isspace() else (words, "")


def _split(line: str) -> list[str]:
    """The words of a line that may end inside quotes."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token)
    return words
