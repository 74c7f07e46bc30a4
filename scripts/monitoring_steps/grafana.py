"""Reads a dashboard as Grafana does: its queries, its variables, and what a query is once they are filled in."""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

Json = Mapping[str, Any]

# What means something in a regular expression. (Backslashes are no part of addresses and names of devices.)
SPECIAL = re.compile(r"[$^*{}\[\]+?.()|]")
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
LABEL_VALUES = re.compile(r"label_values\((?P<series>.+),\s*(?P<label>\w+)\)")


class Asked(NamedTuple):
    """A query of a panel."""

    panel: str
    expr: str
    instant: bool


class Choice(NamedTuple):
    """A variable whose values are those of a label on some series."""

    name: str
    series: str
    label: str
    all_value: str


def panels(dashboard: Json) -> Iterator[Json]:
    """Every panel, those within rows that are folded up too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def asked(dashboard: Json) -> list[Asked]:
    """Every query of every panel."""
    return [
        Asked(panel["title"], target["expr"], bool(target.get("instant")))
        for panel in panels(dashboard)
        for target in panel.get("targets", ())
    ]


def choices(dashboard: Json) -> list[Choice]:
    """The variables that Prometheus is asked for, in the order in which they depend on each other."""
    found = []
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        query = variable["query"] if isinstance(variable["query"], str) else variable["query"]["query"]
        parts = LABEL_VALUES.fullmatch(query)
        if not parts:
            raise ValueError(f"variable {variable['name']}: {query} is no label_values(series, label)")
        found.append(Choice(variable["name"], parts["series"], parts["label"], variable["allValue"]))
    return found


def chosen(values: Sequence[str]) -> str:
    """What stands in a query for values that the viewer has picked: a regular expression of just these."""
    # Two backslashes, of which PromQL's string leaves one.
    escaped = [SPECIAL.sub(lambda match: "\\\\" + match.group(), value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def rate_interval(scrape: float, step: float) -> str:
    """$__rate_interval: long enough that a scrape may fail, and no shorter than from one point drawn to the next."""
    return f"{max(step + scrape, 4 * scrape):g}s"


def filled(expr: str, values: Mapping[str, str]) -> str:
    """A query with its variables filled in; every one must be known."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in values:
            raise ValueError(f"${name} is no variable: {expr}")
        return values[name]

    return VARIABLE.sub(value, expr)
