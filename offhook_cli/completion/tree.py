"""The commands, their options and arguments, and what completes each: `commands.json`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("commands.json")


@dataclass(frozen=True)
class Parameter:
    """An option or an argument.

    Attributes:
        names: of an option, such as `--since`; none for an argument.
        values: what completes it: the values, or the name of a source in `values`; empty: nothing
            does; None for an option that takes no value.
        many: whether it may be given more than once.
    """

    names: Sequence[str] = ()
    values: str | Sequence[str] | None = ""
    many: bool = False
    help: str = ""


@dataclass(frozen=True)
class Command:
    """A command, or a group of commands."""

    help: str
    parameters: Sequence[Parameter]

    @property
    def options(self) -> list[Parameter]:
        """Its options."""
        return [each for each in self.parameters if each.names]

    def option(self, name: str) -> Parameter | None:
        """The option with this name."""
        return next((each for each in self.options if name in each.names), None)

    def argument(self, number: int) -> Parameter | None:
        """The argument at this place, from 0."""
        arguments = [each for each in self.parameters if not each.names]
        if number < len(arguments):
            return arguments[number]
        return arguments[-1] if arguments and arguments[-1].many else None


@dataclass(frozen=True)
class Tree:
    """All commands.

    Attributes:
        commands: by their words, such as `dead list`; the whole program by an empty name.
        defaults: the command that a group runs unless the next word names another.
        keys: in Redis, by the name of the source that reads them.
    """

    commands: Mapping[str, Command]
    defaults: Mapping[str, str]
    keys: Mapping[str, str]

    def below(self, path: str) -> Iterator[tuple[str, Command]]:
        """The commands of a group, by their last word."""
        for name, command in self.commands.items():
            group, _, word = name.rpartition(" ")
            if word and group == path and name not in self.defaults.values():
                yield word, command


def read() -> Tree:
    """Read the file."""
    content: Any = json.loads(FILE.read_text("utf-8"))
    commands = {
        name: Command(each["help"], [Parameter(**one) for one in each["parameters"]])
        for name, each in content["commands"].items()
    }
    return Tree(commands, content["defaults"], content["keys"])
