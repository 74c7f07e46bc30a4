"""Finds the selectors of a query: enough of PromQL for rules about how they are written. Whether a query is valid as a
whole only Prometheus says, which `scripts/monitoring check` asks."""

from __future__ import annotations

import re
from typing import NamedTuple, Sequence

TOKEN = re.compile(
    r"""\s+
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>(?:\d+(?:ms|[smhdwy]))+|\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)
    | (?P<name>[a-zA-Z_:][\w:]*)
    | (?P<variable>\$\w+|\$\{\w+\})
    | (?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^=<>(){}\[\],:@])
    """,
    re.VERBOSE,
)
MATCHER_SIGNS = ("=", "!=", "=~", "!~")
# Words that a list of labels follows, and others that are no metric either.
LISTS = ("by", "without", "on", "ignoring", "group_left", "group_right")
WORDS = ("and", "or", "unless", "bool", "offset", "start", "end", "inf", "nan")


class Token(NamedTuple):
    kind: str
    text: str


class Matcher(NamedTuple):
    """label, sign, value: the value without its quotes."""

    label: str
    sign: str
    value: str


class Selector(NamedTuple):
    """A metric with its matchers, its range if it has one, and the function that it is given to."""

    metric: str
    matchers: Sequence[Matcher]
    range: str
    function: str


class QueryError(ValueError):
    """Not a query."""


def tokens(query: str) -> list[Token]:
    """The words of a query."""
    found, place = [], 0
    while place < len(query):
        match = TOKEN.match(query, place)
        if not match:
            raise QueryError(f"no part of a query: {query[place:place + 20]!r}")
        if match.lastgroup:
            found.append(Token(match.lastgroup, match.group()))
        place = match.end()
    return found


def selectors(query: str) -> list[Selector]:
    """Every selector of a query, in order."""
    return Reader(tokens(query)).read()


class Reader:
    """Walks through a query's tokens, and knows the calls around the one at hand."""

    def __init__(self, words: Sequence[Token]) -> None:
        self.words = [*words, Token("end", "")]
        self.place = 0
        self.calls: list[str] = []  # the function of each open parenthesis, if it has one
        self.found: list[Selector] = []

    def read(self) -> list[Selector]:
        if self.words[0].kind == "end":
            raise QueryError("an empty query")
        called = ""
        while (word := self.next()).kind != "end":
            name, called = called, ""
            if word.text == "(":
                self.calls.append(name)
            elif word.text == ")":
                if not self.calls:
                    raise QueryError("a closing parenthesis too many")
                self.calls.pop()
            elif word.kind == "name":
                called = self.named(word.text)
            elif word.kind == "sign" and word.text in "{}[],:" and word.text != ",":
                raise QueryError(f"{word.text} where there is no metric before it")
        if self.calls:
            raise QueryError("a parenthesis that is not closed")
        return self.found

    def named(self, name: str) -> str:
        """Reads on from a name; gives it back if it is a function's."""
        if name.lower() in LISTS:
            if self.peek() == "(":
                self.until(")")
        elif self.peek() == "(" or self.peek().lower() in ("by", "without"):
            return self.aggregation(name)
        elif name.lower() not in WORDS:
            self.found.append(self.selector(name))
        return ""

    def aggregation(self, name: str) -> str:
        """Skips the labels between an aggregation and what it aggregates."""
        if self.peek() != "(":
            self.next()
            self.until(")")
        return name

    def selector(self, metric: str) -> Selector:
        matchers, range_ = [], ""
        if self.peek() == "{":
            matchers = self.matchers(self.until("}")[1:])
        if self.peek() == "[":
            range_ = "".join(token.text for token in self.until("]")[1:])
        return Selector(metric, matchers, range_, self.calls[-1] if self.calls else "")

    @staticmethod
    def matchers(words: Sequence[Token]) -> list[Matcher]:
        found = []
        for first in range(0, len(words), 4):
            group = words[first : first + 4]
            if (
                len(group) < 3
                or (group[0].kind, group[2].kind) != ("name", "string")
                or group[1].text not in MATCHER_SIGNS
                or (len(group) == 4 and group[3].text != ",")
            ):
                raise QueryError(f"no matcher of a label: {' '.join(word.text for word in group)}")
            found.append(Matcher(group[0].text, group[1].text, group[2].text[1:-1]))
        return found

    def next(self) -> Token:
        word = self.words[self.place]
        self.place = min(self.place + 1, len(self.words) - 1)
        return word

    def peek(self) -> str:
        return self.words[self.place].text

    def until(self, closing: str) -> list[Token]:
        """What comes up to a closing sign, which is passed."""
        found = []
        while (word := self.next()).text != closing:
            if word.kind == "end":
                raise QueryError(f"no {closing}")
            found.append(word)
        return found
