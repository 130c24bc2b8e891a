"""Finds words of templates that are not translated: text, and attributes that people read."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from jinja2 import Environment, nodes

TRANSLATING = frozenset({"_", "gettext", "ngettext", "pgettext", "npgettext"})
READ = frozenset(
    {"alt", "aria-label", "aria-description", "aria-valuetext", "placeholder", "title"}
)
VERBATIM = frozenset({"code", "kbd", "script", "pre"})  # commands, settings and keys
# Names, and examples of what to type.
NAMES = frozenset({"Offhook", "0003*210", "0003*210 0003*211", "PBX", "tel:+442079460100", "p99"})
# The arguments of our macros that are words; of others, those that look like prose.
WORDS = {"badge": slice(2, 3), "icon": slice(1, 2)}
FORMS = frozenset({"moment"})  # macros whose arguments are forms and classes
_FIRST = 0xE000  # characters of private use stand for the expressions
_LETTERS = re.compile(r"[A-Za-z]{2}")
_ATTRIBUTE = re.compile(r"(data|aria)-[a-z-]+(=\"\w+\")?")  # of a block or macro
_PROSE = re.compile(r"[A-Za-z]+ [A-Za-z]|[A-Z][a-z]")


def words_of(environment: Environment, source: str) -> list[str]:
    """The words of a template that are not translated."""
    reader = _Reader()
    template = environment.parse(source)
    reader.feed("".join(_stream(template.body, reader.expressions)))
    for each in template.find_all((nodes.Assign, nodes.Call)):
        reader.found += _prose(each)
    return [*dict.fromkeys(reader.found)]


def _stream(body: Iterable[nodes.Node], expressions: list[nodes.Node]) -> Iterator[str]:
    """The HTML, all branches one after the other, with a character for each expression."""
    for node in body:
        if isinstance(node, nodes.TemplateData):
            yield node.data
        elif isinstance(node, nodes.Expr):
            expressions.append(node)
            yield chr(_FIRST + len(expressions) - 1)
        else:
            yield from (
                _stream(node.iter_child_nodes(), expressions)
                if isinstance(node, nodes.Output)
                else _inside(node, expressions)
            )


def _inside(node: nodes.Node, expressions: list[nodes.Node]) -> Iterator[str]:
    for field in ("body", "elif_", "else_"):
        yield from _stream(getattr(node, field, ()), expressions)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.expressions: list[nodes.Node] = []
        self.found: list[str] = []
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._verbatim += tag in VERBATIM
        for name, value in attrs:
            if name in READ:
                self._check(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._verbatim -= tag in VERBATIM

    def handle_data(self, data: str) -> None:
        if not self._verbatim:
            self._check(data)

    def _check(self, text: str) -> None:
        said = re.sub("[\ue000-\uf8ff]", " ", text).strip(" ·\n")
        if _LETTERS.search(said) and said not in NAMES and not _ATTRIBUTE.fullmatch(said):
            self.found.append(said)
        for character in re.findall("[\ue000-\uf8ff]", text):
            self.found += _words(self.expressions[ord(character) - _FIRST])


def _words(node: nodes.Node | None) -> Iterator[str]:
    """The words that an expression shows."""
    match node:
        case nodes.Const(value=str(value)):
            if _LETTERS.search(value) and value not in NAMES:
                yield value
        case nodes.Call(node=nodes.Name(name=name), args=args):
            for each in args[WORDS[name]] if name in WORDS else ():
                yield from _words(each)
        case nodes.Call(node=nodes.Getattr(node=nodes.Dict(items=items), attr="get"), args=args):
            for pair in items:
                yield from _words(pair.value)
            for each in args[1:]:
                yield from _words(each)
        case nodes.CondExpr(expr1=first, expr2=second):
            yield from _words(first)
            yield from _words(second)
        case nodes.Filter(node=value, name=name):
            if name != "format":
                yield from _words(value)
        case nodes.Or(left=left, right=right) | nodes.Add(left=left, right=right):
            yield from _words(left)
            yield from _words(right)
        case nodes.Concat(nodes=several):
            for each in several:
                yield from _words(each)


def _prose(node: nodes.Node) -> Iterator[str]:
    """Texts that look like prose in an assignment, or among the arguments of a macro."""
    if isinstance(node, nodes.Call):
        if getattr(node.node, "name", "") in TRANSLATING | FORMS:
            return
        own = WORDS.get(getattr(node.node, "name", ""), slice(None))
        parts: Iterable[nodes.Node] = [*node.args[own], *(each.value for each in node.kwargs)]
    else:
        parts = [node]
    for part in parts:
        if isinstance(part, nodes.Const):
            consts: Iterable[nodes.Const] = [part]
        else:
            consts = (each for each in part.find_all(nodes.Const) if not _is_translated(part, each))
        for const in consts:
            if isinstance(const.value, str) and _PROSE.search(const.value.replace("%", "")):
                yield const.value


def _is_translated(part: nodes.Node, const: nodes.Const) -> bool:
    calls = [part] if isinstance(part, nodes.Call) else []
    return any(
        const in each.args
        for each in [*calls, *part.find_all(nodes.Call)]
        if getattr(each.node, "name", "") in TRANSLATING
    )
