"""The console blocks of the documents: commands, and the output shown below them."""

import re

from tests.installation import ROOT


def sample(page: str, command: str) -> str:
    """Return the output that a page in docs/ shows for a command."""
    return dict(samples((ROOT / "docs" / page).read_text()))[command]


def samples(text: str) -> list[tuple[str, str]]:
    """Return every command in the console blocks of a page, with the output shown."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            typed, shown = re.fullmatch(r"(.*\n(?:> .*\n)*)((?:.*\n)*)", part).groups()  # type: ignore[union-attr]
            found.append((typed.replace("\n> ", "\n").rstrip("\n"), shown))
    return found


def lines(output: str) -> list[str]:
    """Return the lines of an output without alignment and numbers, for comparisons."""
    stripped = (" ".join(line.split()) for line in output.strip().splitlines())
    return [re.sub(r"\d+", "0", line) for line in stripped]
