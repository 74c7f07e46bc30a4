"""Asks a Prometheus that scrapes running trainings every query of dashboard and rules: each must return data."""

from __future__ import annotations

import math
import re
import time
from itertools import chain
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from . import grafana
from .grafana import chosen
from .prometheus import Api, RefusedError

Json = Mapping[str, Any]
Series = dict[str, Any]

SCRAPE = 1.0  # seconds, of `prometheus.configured`
# A comparison with a number: all that makes an alert of an expression that always has a value.
THRESHOLD = re.compile(r"\s*(?:==|!=|>=|<=|>|<)\s*-?[\d.]+")
SHOWN = 4  # series of a query that the table shows
# Not known of CPU devices, which share their process's memory: on them it is there, and not a number.
UNKNOWN = "mpt_device_memory_bytes"
# What says nothing of a healthy run.
SILENT = re.compile(r"\bALERTS\b")
# Has data of a job once its run has been seen for ten scrapes, evaluated, saved and got through the rules.
SETTLED = (
    "(count_over_time(mpt_steps_total[1m]) >= 10)"
    ' and on (job) (mpt_loss{subset="test"} > -Inf)'
    " and on (job) (mpt_last_checkpoint_timestamp_seconds > 0)"
    " and on (job) (instance_device:mpt_phase_wait_of_others:ratio_rate5m > -Inf)"
)


class Finding(NamedTuple):
    """A query and what came of it: no problem is an empty one."""

    what: str
    expr: str
    answer: str
    problem: str = ""


def settle(api: Api, jobs: Sequence[str], limit: float) -> None:
    """Waits until there is something to look at of every job: scraped, evaluated and saved."""
    await_series(api, SETTLED, "job", jobs, limit)


def await_series(api: Api, expr: str, label: str, values: Sequence[str], limit: float) -> None:
    """Waits until a query has a series for each of these values of a label."""
    deadline = time.monotonic() + limit
    while missing := set(values) - {each["metric"].get(label) for each in api.query(expr)}:
        if time.monotonic() > deadline:
            raise RefusedError(f"after {limit:.0f} s there is nothing of {', '.join(sorted(missing))}: {expr}")
        time.sleep(SCRAPE)


def findings(dashboard: Json, api: Api, jobs: Sequence[str], since: float) -> list[Finding]:
    """All of them."""
    return [*variables(dashboard, api, jobs), *panels(dashboard, api, jobs, since), *marks(dashboard, api), *rules(api)]


def variables(dashboard: Json, api: Api, jobs: Sequence[str]) -> Iterator[Finding]:
    """Each variable lists something, with all of those before it, and the jobs are the runs."""
    for choice, values in listed(dashboard, api, {}):
        wrong = choice.name == "job" and set(values) != set(jobs)
        problem = "no value" if not values else f"not just {', '.join(jobs)}" if wrong else ""
        yield Finding(f"variable {choice.name}", choice.series, ", ".join(values), problem)


def listed(
    dashboard: Json, api: Api, picked: Mapping[str, str]
) -> Iterator[tuple[grafana.Choice, list[str]]]:
    """What each variable offers, where the viewer has picked some and takes all of the others."""
    values: dict[str, str] = {}
    for choice in grafana.choices(dashboard):
        yield choice, api.label_values(choice.label, grafana.filled(choice.series, values))
        values[choice.name] = picked.get(choice.name, choice.all_value)


def selections(dashboard: Json, api: Api) -> Iterator[tuple[str, dict[str, str]]]:
    """What a viewer may pick, with a word for each: everything, one value of a variable, or every value by name."""
    offered = list(listed(dashboard, api, {}))
    every = {choice.name: choice.all_value for choice, _ in offered}
    yield "all", every
    for choice, values in offered:
        for value in values:
            yield f"{choice.name} {value}", {**every, choice.name: chosen([value])}
    yield "each by name", {choice.name: chosen(values) for choice, values in offered}


def panels(dashboard: Json, api: Api, jobs: Sequence[str], since: float) -> Iterator[Finding]:
    """Each query of each panel, for everything that a viewer may pick."""
    span = time.time() - since
    times = {"__rate_interval": grafana.rate_interval(SCRAPE, SCRAPE), "__range": f"{math.ceil(span)}s"}
    picks = list(selections(dashboard, api))
    for asked in grafana.asked(dashboard):
        shown = ""
        for pick, values in picks:
            expr = grafana.filled(asked.expr, {**values, **times})
            wanted = [pick[4:]] if pick.startswith("job ") else jobs if pick in ("all", "each by name") else []
            try:
                series = api.query(expr) if asked.instant else api.query_range(expr, since, time.time(), SCRAPE)
                problem = lacking(series, wanted, UNKNOWN not in expr)
            except RefusedError as error:
                series, problem = [], str(error)
            shown = shown or summary(series)
            if problem:
                yield Finding(f"{asked.panel}, {pick}", expr, summary(series), problem)
                break
        else:
            yield Finding(asked.panel, asked.expr, shown)


def marks(dashboard: Json, api: Api) -> Iterator[Finding]:
    """The marks on the panels: of a healthy run there are none, but the query is one."""
    (_, values), *_ = selections(dashboard, api)
    for annotation in dashboard["annotations"]["list"]:
        yield evaluated(f"annotation {annotation['name']}", grafana.filled(annotation["expr"], values), api)


def rules(api: Api) -> Iterator[Finding]:
    """Each rule works; what it records is there, and an alert's expression has a value but for its threshold."""
    for rule in api.rules():
        what = f"{'alert' if rule['type'] == 'alerting' else 'rule'} {rule['name']}"
        if rule["health"] != "ok":
            yield Finding(what, rule["query"], "", f"its health is {rule['health']}: {rule.get('lastError')}")
        elif rule["type"] == "recording":
            yield evaluated(what, rule["name"], api)
        else:
            yield evaluated(what, always(rule["query"]), api)


def always(expr: str) -> str:
    """An alert's expression without what makes it silent: thresholds, and what it excepts."""
    return re.sub(r"\bunless\b", "and", THRESHOLD.sub("", expr))


def evaluated(what: str, expr: str, api: Api) -> Finding:
    """One query, now."""
    try:
        series = api.query(expr)
    except RefusedError as error:
        return Finding(what, expr, "", str(error))
    return Finding(what, expr, summary(series), "" if SILENT.search(expr) else lacking(series, ()))


def lacking(series: Sequence[Series], jobs: Sequence[str], wants_numbers: bool = True) -> str:
    """What is missing in an answer: any series, any number, or one of the jobs where they are told apart."""
    if not series:
        return "no data"
    finite = [each for each in series if not wants_numbers or any(math.isfinite(value) for value in numbers(each))]
    if not finite:
        return "no number, only NaN or infinity"
    told_apart = any("job" in each["metric"] for each in finite)
    missing = set(jobs) - {each["metric"].get("job") for each in finite} if told_apart else set()
    return f"nothing of {', '.join(sorted(missing))}" if missing else ""


def numbers(series: Series) -> list[float]:
    """The values of a series, at one time or over time."""
    return [float(value) for _, value in series.get("values", [series.get("value")])]


def summary(series: Sequence[Series]) -> str:
    """The last value of some series, with what tells them apart."""
    labels = [{name: value for name, value in each["metric"].items() if name != "__name__"} for each in series]
    common = set.intersection(*(set(each.items()) for each in labels)) if len(labels) > 1 else set()
    words = []
    for each, own in zip(series[:SHOWN], labels):
        name = " ".join(value for label, value in sorted(own.items()) if (label, value) not in common)
        words.append(f"{name} {numbers(each)[-1]:.6g}".strip())
    return "; ".join([*words, *([f"and {len(series) - SHOWN} more"] if len(series) > SHOWN else [])])


def table(found: Sequence[Finding]) -> str:
    """What was found, for people; what is wrong with its query."""
    width = max(len(finding.what) for finding in found)
    return "\n".join(
        chain.from_iterable(
            [f"  {finding.what.ljust(width)}  {finding.answer}"]
            + ([f"    PROBLEM: {finding.problem}: {finding.expr}"] if finding.problem else [])
            for finding in found
        )
    )
