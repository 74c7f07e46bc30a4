"""Grafana's dashboard: it is what its source makes, and each rule of the linter finds a dashboard that breaks it."""

from __future__ import annotations

import copy
import json
import unittest
from typing import Any, Callable

from monitoring_steps import dashboard, lint, panels
from monitoring_steps.dashboard import dashboard_file
from monitoring_steps.grafana import Choice, asked, choices, chosen, filled, rate_interval
from monitoring_steps.promql import Matcher, QueryError, selectors

from .support import SCRIPTS

ROOT = SCRIPTS.parent
Json = dict[str, Any]


def shipped() -> Json:
    return json.loads(dashboard_file(ROOT).read_text(encoding="utf-8"))


def panel(board: Json, title: str) -> Json:
    return next(each for each in board["panels"] if each["title"] == title)


def variable(board: Json, name: str) -> Json:
    return next(each for each in board["templating"]["list"] if each["name"] == name)


def target(board: Json) -> Json:
    return panel(board, "Examples/sec of the run")["targets"][0]


def put(where: Callable[[Json], Json], **values: Any) -> Callable[[Json], None]:
    """Breaks a dashboard by other values in one place of it."""
    return lambda board: where(board).update(values)


def of(name: str) -> Callable[[Json], Json]:
    return lambda board: variable(board, name)


def loss(board: Json) -> Json:
    return panel(board, "Loss")


FIXED = {"type": "prometheus", "uid": "mpt-prometheus"}
WITHOUT_JOB = 'mpt_epoch{instance=~"$instance"}'
WITH_ONE_JOB = 'mpt_epoch{job="mpt", instance=~"$instance"}'
OF_ALL_HOSTS = 'mpt_epoch{job=~"$job"}'
BARE_COUNTER = 'mpt_steps_total{job=~"$job", instance=~"$instance"}'
FIXED_RATE = f"rate({BARE_COUNTER}[5m])"

# What breaks each rule, and nothing else.
BROKEN: dict[str, list[Callable[[Json], None]]] = {
    "template-datasource-rule": [
        put(of("datasource"), label="Source"),
        lambda board: board["templating"]["list"].append({**variable(board, "datasource"), "name": "other"}),
    ],
    "template-job-rule": [
        put(of("job"), multi=False),
        put(of("job"), allValue=None),
        put(of("job"), label="Run"),
        put(of("job"), datasource=FIXED),
        lambda board: board["templating"]["list"].remove(variable(board, "job")),
    ],
    "template-instance-rule": [put(of("instance"), allValue=".*"), put(of("instance"), name="host")],
    "template-device-rule": [put(of("device"), multi=False)],
    "template-label-promql-rule": [
        put(of("device"), query="values(mpt_rank_info, device)"),
        put(of("device"), query={"query": "label_values(mpt_rank_info{device}, device)"}),
    ],
    "template-on-time-change-reload-rule": [put(of("instance"), refresh=1)],
    "panel-datasource-rule": [
        put(loss, datasource=FIXED),
        put(loss, datasource=None),
        put(target, datasource=FIXED),
        put(lambda board: board["annotations"]["list"][0], datasource=FIXED),
    ],
    "panel-title-description-rule": [put(loss, description=""), put(loss, title="")],
    "panel-units-rule": [
        lambda board: loss(board)["fieldConfig"]["defaults"].pop("unit"),
        lambda board: loss(board)["fieldConfig"]["defaults"].update(unit="nats"),
    ],
    "panel-no-targets-rule": [put(loss, targets=[])],
    "target-promql-rule": [put(target, expr=""), put(target, expr="max by (job) (up"), put(target, expr="up{job~}")],
    "target-rate-interval-rule": [put(target, expr=FIXED_RATE)],
    "target-job-rule": [put(target, expr=WITHOUT_JOB), put(target, expr=WITH_ONE_JOB)],
    "target-instance-rule": [put(target, expr=OF_ALL_HOSTS)],
    "target-counter-agg-rule": [put(target, expr=BARE_COUNTER), put(target, expr=f"max_over_time({BARE_COUNTER}[1h])")],
    "uneditable-dashboard": [put(lambda board: board, editable=True), lambda board: board.pop("editable")],
    "panels-have-places": [
        put(loss, id=1),
        lambda board: loss(board)["gridPos"].update(x=20),
        lambda board: loss(board)["gridPos"].update(h=9),
    ],
}


class DashboardTest(unittest.TestCase):
    def test_the_file_is_what_the_source_makes(self) -> None:
        made = dashboard.text(panels.ROWS)
        self.assertEqual(made, dashboard_file(ROOT).read_text(encoding="utf-8"), "run scripts/monitoring write")

    def test_it_keeps_the_linters_rules(self) -> None:
        self.assertEqual(lint.problems(shipped()), [])

    def test_every_rule_has_a_reason_and_finds_what_breaks_it_and_nothing_else(self) -> None:
        self.assertEqual(BROKEN.keys(), lint.RULES.keys())
        for rule, breakages in BROKEN.items():
            self.assertTrue(lint.RULES[rule].__doc__, rule)
            for number, breakage in enumerate(breakages):
                with self.subTest(rule=rule, number=number):
                    board = copy.deepcopy(shipped())
                    breakage(board)
                    found = {problem.split(":")[0] for problem in lint.problems(board)}
                    self.assertEqual(found, {rule})

    def test_it_asks_for_everything_that_was_wanted_of_it(self) -> None:
        metrics = {selector.metric for each in asked(shipped()) for selector in selectors(each.expr)}
        wanted = {
            "up ALERTS mpt_build_info mpt_run_info mpt_rank_info mpt_examples_total mpt_examples_per_second",
            "mpt_job_examples_total mpt_steps_total mpt_remaining_steps mpt_evaluated_examples_total mpt_epoch",
            "mpt_step_duration_seconds_bucket",
            "mpt_phase_seconds_total mpt_exchange_sent_bytes_total mpt_exchange_received_bytes_total mpt_loss",
            "mpt_accuracy_ratio mpt_model_flops_per_second mpt_learning_rate mpt_gradient_norm",
            "mpt_nonfinite_steps_total mpt_loader_queue_batches mpt_images_decoded_total",
            "mpt_image_decode_failures_total mpt_device_memory_bytes mpt_last_step_timestamp_seconds",
            "mpt_last_checkpoint_timestamp_seconds process_resident_memory_bytes process_cpu_seconds_total",
        }
        self.assertLessEqual(set(" ".join(wanted).split()), metrics)

    def test_it_can_be_imported_anywhere(self) -> None:
        board = shipped()
        self.assertNotIn("id", board, "a number of one Grafana's database")
        self.assertRegex(board["uid"], "^[a-z-]{1,40}$")
        self.assertEqual({each.get("libraryPanel") for each in board["panels"]}, {None})

    def test_a_series_of_a_device_is_of_the_chosen_device(self) -> None:
        chosen_device = Matcher("device", "=~", "$device")
        for each in asked(shipped()):
            for selector in selectors(each.expr):
                if "{device}" in each.expr or "device)" in each.expr or selector.metric == "mpt_phase_seconds_total":
                    self.assertIn(chosen_device, selector.matchers, each.panel)


class PromqlTest(unittest.TestCase):
    def metrics(self, query: str) -> list[str]:
        return [selector.metric for selector in selectors(query)]

    def test_a_selector_is_told_with_its_matchers_its_range_and_its_function(self) -> None:
        (selector,) = selectors("""sum by (job) (rate(a:b_total{x="1", y!~'2,}',}[$__rate_interval]))""")
        self.assertEqual(selector.metric, "a:b_total")
        self.assertEqual(selector.matchers, [Matcher("x", "=", "1"), Matcher("y", "!~", "2,}")])
        self.assertEqual((selector.range, selector.function), ("$__rate_interval", "rate"))

    def test_labels_functions_and_words_are_no_metrics(self) -> None:
        query = "sum without (c) (a) / on (d) group_left (e) b unless a offset 5m"
        self.assertEqual(self.metrics(query), ["a", "b", "a"])
        self.assertEqual(self.metrics("time() - avg(up) by (job) or vector(0) > bool 1e3"), ["up"])
        self.assertEqual(self.metrics("histogram_quantile(0.9, a) == -Inf"), ["a"])

    def test_the_function_is_the_nearest_one_around(self) -> None:
        found = {each.metric: each.function for each in selectors("rate(a[1m]) / (b + max(c))")}
        self.assertEqual(found, {"a": "rate", "b": "", "c": "max"})

    def test_what_is_no_query_is_refused(self) -> None:
        for query in ("", "a{", "a{b}", 'a{b="c" d="e"}', "(a", "a)", "a[5m", "{}", "a # b", 'a{b=="c"}'):
            with self.subTest(query=query), self.assertRaises(QueryError):
                selectors(query)


class GrafanaTest(unittest.TestCase):
    def test_variables_are_filled_in(self) -> None:
        values = {"job": "mpt", "__rate_interval": "4s"}
        self.assertEqual(filled('rate(a{job=~"$job"}[${__rate_interval}])', values), 'rate(a{job=~"mpt"}[4s])')
        with self.assertRaisesRegex(ValueError, "\\$device is no variable"):
            filled('a{device=~"$device"}', values)

    def test_what_was_picked_is_a_regular_expression_of_just_that(self) -> None:
        self.assertEqual(chosen(["cuda:0"]), "cuda:0")
        self.assertEqual(chosen(["127.0.0.1:1", "b"]), r"(127\\.0\\.0\\.1:1|b)")

    def test_rates_are_taken_over_four_scrapes_at_least(self) -> None:
        self.assertEqual(rate_interval(scrape=5, step=1), "20s")
        self.assertEqual(rate_interval(scrape=5, step=60), "65s")

    def test_variables_tell_what_they_ask_for(self) -> None:
        found = choices(shipped())
        self.assertEqual([each.name for each in found], ["job", "instance", "device"])
        self.assertEqual(found[1], Choice("instance", 'mpt_build_info{job=~"$job"}', "instance", ".+"))
