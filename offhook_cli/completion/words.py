"""Which words may come next on a command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from offhook_cli.completion import values
from offhook_cli.completion.tree import Command, Parameter, Tree


@dataclass(frozen=True)
class Candidate:
    """A word that may be typed, and a sentence about it."""

    value: str
    help: str = ""


def candidates(tree: Tree, words: Sequence[str], begun: str) -> list[Candidate]:
    """The words that may come next.

    Args:
        words: those before it, without the program's name.
        begun: its beginning.
    """
    line = _Line(tree)
    for word in words:
        line.add(word)
    if line.waiting is not None:
        begun = "" if begun == "=" else begun  # bash makes it a word of its own
        return [Candidate(each) for each in _completing(tree, line.waiting, begun)]
    if begun.startswith("-") and not line.only_arguments:
        return _options(tree, line, begun)
    found = [
        Candidate(word, command.help)
        for word, command in ([] if line.arguments else tree.below(line.path))
        if word.startswith(begun)
    ]
    argument = line.command.argument(len(line.arguments))
    if argument is not None:
        known = _completing(tree, argument, begun)
        found += [Candidate(each) for each in known if each not in line.arguments]
    return found


@dataclass
class _Line:
    """What the words before say.

    Attributes:
        path: the command that they name.
        waiting: the option whose value comes next.
        only_arguments: after `--`.
    """

    tree: Tree
    path: str = ""
    waiting: Parameter | None = None
    only_arguments: bool = False
    options: set[str] = field(default_factory=set)
    arguments: list[str] = field(default_factory=list)

    @property
    def command(self) -> Command:
        return self.tree.commands[self.tree.defaults.get(self.path, self.path)]

    def add(self, word: str) -> None:
        below = f"{self.path} {word}".strip()
        if self.waiting is not None:
            if word != "=":
                self.waiting = None
        elif word == "--":
            self.only_arguments = True
        elif word.startswith("-") and not self.only_arguments:
            name, equals, _ = word.partition("=")
            option = self.command.option(name)
            self.options.add(name)
            if option is not None and option.values is not None and not equals:
                self.waiting = option
        elif not self.arguments and below in self.tree.commands:
            self.path = below
            self.options.clear()
        else:
            self.arguments.append(word)


def _options(tree: Tree, line: _Line, begun: str) -> list[Candidate]:
    name, equals, value = begun.partition("=")
    if equals:
        option = line.command.option(name)
        return [Candidate(f"{name}={each}") for each in _completing(tree, option, value)]
    return [
        Candidate(each, option.help)
        for option in line.command.options
        if option.many or line.options.isdisjoint(option.names)
        for each in option.names
        if each.startswith(begun) and each.startswith("--")
    ]


def _completing(tree: Tree, parameter: Parameter | None, begun: str) -> list[str]:
    if parameter is None or not parameter.values:
        return []
    if isinstance(parameter.values, str):
        return values.find(parameter.values, begun, tree.keys)
    return [each for each in parameter.values if each.startswith(begun)]
