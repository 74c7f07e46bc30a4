"""The rules of Grafana's dashboard linter (grafana/dashboard-linter), under the names it gives them, each with its
reason; and some more of ours. Rules about Loki are left out: no query here is one of its.

The linter itself cannot be had from a package registry. Where it looks at some kinds of panels only, these rules look
at all; its warnings are errors here.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any, Callable, Iterator, Mapping

from .dashboard import COLUMNS
from .grafana import panels
from .promql import Matcher, QueryError, Selector, selectors

Json = Mapping[str, Any]
Rule = Callable[[Json], Iterator[str]]

TEMPLATED = ("$datasource", "${datasource}")
RATES = ("rate", "irate")
COUNTED = (*RATES, "increase")
# Those of Grafana's units that measure something of ours.
UNITS = ("none", "short", "percentunit", "s", "bytes", "Bps", "flops", "ops")
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Adds a rule under its name."""

    def add(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return add


def problems(dashboard: Json) -> list[str]:
    """All that breaks a rule: the rule, a colon and what is wrong."""
    return [f"{name}: {problem}" for name, check in RULES.items() for problem in check(dashboard)]


def drawn(dashboard: Json) -> Iterator[Json]:
    """The panels that show something: rows are headings."""
    return (panel for panel in panels(dashboard) if panel["type"] != "row")


def targets(dashboard: Json) -> Iterator[tuple[str, Json]]:
    """Every query with the title of its panel, and the marks on all panels."""
    for panel in drawn(dashboard):
        for target in panel.get("targets") or ():
            yield panel.get("title", ""), target
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation


def selected(dashboard: Json) -> Iterator[tuple[str, Selector]]:
    """Every selector of every query that can be read, with the title of its panel."""
    for title, target in targets(dashboard):
        try:
            yield from ((title, selector) for selector in selectors(target.get("expr", "")))
        except QueryError:
            pass  # that is target-promql-rule's


def variables(dashboard: Json, kind: str) -> list[Json]:
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == kind]


def uid(thing: Json) -> str:
    """The data source of a panel, a query or a variable."""
    source = thing.get("datasource")
    return source.get("uid", "") if isinstance(source, Mapping) else str(source)


@rule("template-datasource-rule")
def the_viewer_chooses_the_data_source(dashboard: Json) -> Iterator[str]:
    """Where the data is differs from one Grafana to the next."""
    found = [(variable["name"], variable.get("label")) for variable in variables(dashboard, "datasource")]
    if found != [("datasource", "Data source")]:
        yield f"one variable `datasource`, labelled `Data source`, is wanted, not {found}"


def templated(dashboard: Json, name: str) -> Iterator[str]:
    """The variable lists what the data source has, and one can pick one value, several or all."""
    found = [variable for variable in variables(dashboard, "query") if variable["name"] == name]
    if not found:
        yield f"there is no variable `{name}` that asks the data source"
        return
    wanted = {"label": name.capitalize(), "multi": True, "allValue": ".+"}
    for key, value in wanted.items():
        if found[0].get(key) != value:
            yield f"`{key}` of variable `{name}` should be {value!r}, and is {found[0].get(key)!r}"
    if uid(found[0]) not in TEMPLATED:
        yield f"variable `{name}` asks the data source {uid(found[0])!r}, not the one that the viewer chose"


@rule("template-job-rule")
def the_viewer_chooses_the_job(dashboard: Json) -> Iterator[str]:
    """Every series of Prometheus has a job: with us, the training run."""
    yield from templated(dashboard, "job")


@rule("template-instance-rule")
def the_viewer_chooses_the_instance(dashboard: Json) -> Iterator[str]:
    """Every series of Prometheus has an instance: with us, a host of the run."""
    yield from templated(dashboard, "instance")


@rule("template-device-rule")
def the_viewer_chooses_the_device(dashboard: Json) -> Iterator[str]:
    """Ours: one device of many is what one looks at when it is slow."""
    yield from templated(dashboard, "device")


@rule("template-label-promql-rule")
def variables_ask_for_the_values_of_a_label(dashboard: Json) -> Iterator[str]:
    """Grafana asks with a function of its own, around a selector; one that it does not know gives an empty list."""
    for variable in variables(dashboard, "query"):
        query = variable["query"] if isinstance(variable["query"], str) else variable["query"].get("query", "")
        parts = re.fullmatch(r"(label_names|label_values|metrics|query_result)\((.+?)(,\s*\w+)?\)", query)
        try:
            if not parts or len(selectors(parts[2])) != 1:
                yield f"variable `{variable['name']}`: no values of a label: {query}"
        except QueryError as error:
            yield f"variable `{variable['name']}`: {error}"


@rule("template-on-time-change-reload-rule")
def variables_follow_the_time_range(dashboard: Json) -> Iterator[str]:
    """A run of last week is not found in a list that was made when the page was opened."""
    for variable in variables(dashboard, "query"):
        if variable.get("refresh") != 2:
            yield f"variable `{variable['name']}` should be asked again when the time range changes: refresh 2"


@rule("panel-datasource-rule")
def panels_use_the_chosen_data_source(dashboard: Json) -> Iterator[str]:
    """A panel with a data source of its own is empty in every other Grafana. So are a query's and a mark's."""
    for panel in drawn(dashboard):
        if uid(panel) not in TEMPLATED:
            yield f"panel `{panel.get('title')}` uses {uid(panel)!r}"
    for title, target in targets(dashboard):
        if uid(target) not in TEMPLATED:
            yield f"a query of `{title}` uses {uid(target)!r}"


@rule("panel-title-description-rule")
def panels_say_what_they_show(dashboard: Json) -> Iterator[str]:
    """Who is woken at night did not make the dashboard."""
    for panel in drawn(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield f"panel {panel['id']} `{panel.get('title', '')}` lacks a title or a description"


@rule("panel-units-rule")
def panels_have_units(dashboard: Json) -> Iterator[str]:
    """A number without a unit is read as something else. Grafana takes an unknown one for a suffix."""
    for panel in drawn(dashboard):
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
        if unit not in UNITS:
            yield f"panel `{panel.get('title')}` has the unit {unit!r}, none of {', '.join(UNITS)}"


@rule("panel-no-targets-rule")
def panels_ask_something(dashboard: Json) -> Iterator[str]:
    """An empty panel looks like a run that stands still."""
    for panel in drawn(dashboard):
        if not panel.get("targets"):
            yield f"panel `{panel.get('title')}` has no query"


@rule("target-promql-rule")
def queries_can_be_read(dashboard: Json) -> Iterator[str]:
    """A query that cannot be read shows an error. (Whether it is valid as a whole Prometheus says.)"""
    for title, target in targets(dashboard):
        try:
            selectors(target.get("expr", ""))
        except QueryError as error:
            yield f"a query of `{title}`: {error}: {target.get('expr')}"


@rule("target-rate-interval-rule")
def rates_fit_the_resolution(dashboard: Json) -> Iterator[str]:
    """A fixed range shows nothing where it is shorter than two scrapes, and hides what lies between two points."""
    for title, selector in selected(dashboard):
        if selector.function in RATES and selector.range != "$__rate_interval":
            yield f"`{title}`: {selector.metric}[{selector.range}] should have the range $__rate_interval"


def matched(dashboard: Json, name: str) -> Iterator[str]:
    """What the viewer chose applies to every series."""
    for title, selector in selected(dashboard):
        if Matcher(name, "=~", f"${name}") not in selector.matchers:
            yield f'`{title}`: {selector.metric} lacks {name}=~"${name}"'


@rule("target-job-rule")
def queries_are_of_the_chosen_job(dashboard: Json) -> Iterator[str]:
    """Else a panel shows other runs than its neighbours."""
    yield from matched(dashboard, "job")


@rule("target-instance-rule")
def queries_are_of_the_chosen_instance(dashboard: Json) -> Iterator[str]:
    """Else a panel shows other hosts than its neighbours."""
    yield from matched(dashboard, "instance")


@rule("target-counter-agg-rule")
def counters_are_shown_as_rates(dashboard: Json) -> Iterator[str]:
    """A counter begins at 0 with each start of the process: as it is, it says nothing."""
    for title, selector in selected(dashboard):
        if selector.metric.endswith("_total") and not (selector.range and selector.function in COUNTED):
            yield f"`{title}`: the counter {selector.metric} without rate, irate or increase"


@rule("uneditable-dashboard")
def the_file_is_the_truth(dashboard: Json) -> Iterator[str]:
    """What is changed in the browser is gone when the file is read again."""
    if dashboard.get("editable", True):
        yield "it should say `editable: false`"


@rule("panels-have-places")
def panels_have_a_place_of_their_own(dashboard: Json) -> Iterator[str]:
    """Ours: Grafana moves panels that overlap, and takes two of one number for one."""
    every = list(panels(dashboard))
    for panel in every:
        place = panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS:
            yield f"panel `{panel['title']}` ends in column {place['x'] + place['w']} of {COLUMNS}"
    for one, other in combinations(every, 2):
        if one["id"] == other["id"]:
            yield f"panels `{one['title']}` and `{other['title']}` have the number {one['id']}"
        if overlap(one["gridPos"], other["gridPos"]):
            yield f"panels `{one['title']}` and `{other['title']}` overlap"


def overlap(one: Json, other: Json) -> bool:
    return all(
        one[begin] < other[begin] + other[size] and other[begin] < one[begin] + one[size]
        for begin, size in (("x", "w"), ("y", "h"))
    )
