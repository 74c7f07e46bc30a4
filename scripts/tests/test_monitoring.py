"""Rules and settings for Prometheus and Grafana, and what counts as an answer when a real Prometheus is asked."""

from __future__ import annotations

import re
import time
from typing import Any
from unittest import mock

from monitoring_steps import check, exposition, prometheus
from monitoring_steps.command import PARSER
from monitoring_steps.grafana import asked
from monitoring_steps.prometheus import Api, RefusedError

from .exporter import families
from .support import SCRIPTS, ScratchTest
from .test_dashboard import shipped

MONITORING = SCRIPTS.parent / "cluster" / "monitoring"
JOBS = ("mpt-a", "mpt-b")


def shipped_text(*path: str) -> str:
    return MONITORING.joinpath(*path).read_text(encoding="utf-8")


class RulesTest(ScratchTest):
    """What promtool does not look for. It checks the rest, in `scripts/monitoring check`."""

    def test_every_alert_has_a_case_in_which_it_fires_one_in_which_it_does_not_and_a_line_of_what_to_do(self) -> None:
        tests, manual = shipped_text("prometheus", "tests.yml"), shipped_text("README.md")
        for alert in self.named("alert", "alerts.yml"):
            cases = re.findall(rf"alertname: {alert}\n +exp_alerts:(.*)", tests)
            self.assertIn(" []", cases, alert)
            fires = "" in cases or f'ALERTS{{alertname="{alert}", alertstate="firing"' in tests
            self.assertTrue(fires, alert)
            self.assertRegex(manual, rf"(?m)^\| `{alert}` \| .+ \| .+ \|$")

    def test_every_alert_says_what_it_is_about_and_how_urgent(self) -> None:
        text = shipped_text("prometheus", "alerts.yml")
        alerts = text.split("- alert: ")[1:]
        self.assertEqual(len(alerts), 6)
        for alert in alerts:
            self.assertRegex(alert, r"severity: (critical|warning) ")
            self.assertRegex(alert, r"(?m)^ +summary: .+\n +description: ")

    def test_every_recording_rule_is_named_for_what_it_is_and_has_a_test(self) -> None:
        tests = shipped_text("prometheus", "tests.yml")
        for record in self.named("record", "recording.yml"):
            self.assertRegex(record, r"^[a-z_]+:mpt_[a-z_]+:[a-z]+(_rate)?\w*$")
            self.assertIn(f"- expr: {record}", tests)

    def named(self, kind: str, file: str) -> list[str]:
        found = re.findall(rf"(?m)^ +- {kind}: (\S+)$", shipped_text("prometheus", file))
        self.assertTrue(found)
        return found


class StackTest(ScratchTest):
    def test_images_are_pinned_and_nothing_is_open_to_others(self) -> None:
        text = shipped_text("compose.yml")
        images = re.findall(r"image: (\S+)", text)
        self.assertEqual(len(images), 2)
        for image in images:
            self.assertRegex(image, r"^[a-z]+/[a-z]+:v?\d+\.\d+\.\d+$")
        self.assertNotIn("ports:", text)
        self.assertIn("--web.listen-address=127.0.0.1:9090", text)
        self.assertIn("GF_SERVER_HTTP_ADDR: 127.0.0.1", text)
        self.assertNotRegex(text, r"PASSWORD: (?!\$\{\w+:\?)")

    def test_every_mounted_folder_is_there_and_holds_what_the_settings_name(self) -> None:
        text = shipped_text("compose.yml")
        mounts = dict(re.findall(r"- \./(\S+?):(\S+?):ro", text))
        self.assertEqual(len(mounts), 3)
        for folder in mounts:
            self.assertTrue((MONITORING / folder).is_dir(), folder)
        home = re.search(r"HOME_DASHBOARD_PATH: (\S+)", text)
        provider = re.search(r"path: (\S+)", shipped_text("grafana", "provisioning", "dashboards", "mpt.yml"))
        assert home and provider
        self.assertEqual(mounts["grafana/dashboards"], provider[1])
        self.assertEqual(home[1], f"{provider[1]}/mpt.json")

    def test_the_data_source_has_a_fixed_uid_and_the_interval_and_address_of_prometheus(self) -> None:
        source = shipped_text("grafana", "provisioning", "datasources", "prometheus.yml")
        self.assertRegex(source, r"(?m)^    uid: mpt-prometheus\b")
        self.assertIn("url: http://127.0.0.1:9090", source)
        interval = re.search(r"scrape_interval: (\S+)", shipped_text("prometheus", "prometheus.yml"))
        assert interval
        self.assertRegex(source, rf"timeInterval: {interval[1]}\b")


class FakeApi(Api):
    """Answers as Prometheus does: each query with the same series, but for those in `unlike`."""

    def __init__(self) -> None:
        super().__init__("")
        self.series = [self.one(job=job, instance=job[-1], device="cpu:0") for job in JOBS]
        self.unlike: dict[str, Any] = {}  # by a part of the query: other series, or an error's text
        self.known: list[dict[str, Any]] = []  # rules
        self.queries: list[str] = []

    @staticmethod
    def one(value: str = "1", **labels: str) -> dict[str, Any]:
        return {"metric": labels, "value": [0, value], "values": [[0, value]]}

    def get(self, path: str, **parameters: str) -> Any:
        if path == "rules":
            return {"groups": [{"rules": self.known}]}
        if path.startswith("label/"):
            label = path.split("/")[1]
            return sorted({each["metric"][label] for each in self.series})
        query = parameters["query"]
        self.queries.append(query)
        answer = next((value for part, value in self.unlike.items() if part in query), self.series)
        if isinstance(answer, str):
            raise RefusedError(answer)
        return {"resultType": "vector", "result": answer}


class CheckTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.api = FakeApi()

    def problems(self) -> list[str]:
        found = check.findings(shipped(), self.api, JOBS, time.time() - 10)
        return [f"{each.what}: {each.problem}" for each in found if each.problem]

    def test_what_answers_everything_has_no_problem_and_every_query_is_asked(self) -> None:
        self.assertEqual(self.problems(), [])
        asked_for = {query.split("{")[0].split("(")[-1] for query in self.api.queries}
        self.assertLessEqual({"up", "mpt_loss", "mpt_rank_info"}, asked_for)
        queries = len(asked(shipped()))
        # All; two jobs, two instances and a device one by one; and all of these by name: of each query.
        self.assertEqual(len([query for query in self.api.queries if "ALERTS{job=~" not in query]), 7 * (queries - 1))
        self.assertFalse([query for query in self.api.queries if "$" in query])

    def test_an_empty_answer_is_a_problem_of_its_panel(self) -> None:
        self.api.unlike["mpt_epoch"] = []
        self.assertEqual(self.problems(), ["Epoch, all: no data"])

    def test_numbers_that_are_none_are_a_problem(self) -> None:
        nothing = [self.api.one("NaN", job=JOBS[0]), self.api.one("+Inf", job=JOBS[1])]
        self.api.unlike["mpt_accuracy_ratio"] = nothing
        self.assertEqual(self.problems(), ["Accuracy, all: no number, only NaN or infinity"])
        # Of CPU devices the memory is not known.
        self.api.unlike = {"mpt_device_memory_bytes": nothing}
        self.assertEqual(self.problems(), [])

    def test_a_panel_that_shows_only_one_of_two_runs_is_a_problem(self) -> None:
        self.api.unlike["mpt_learning_rate"] = [self.api.one(job=JOBS[0]), self.api.one("NaN", job=JOBS[1])]
        self.assertEqual(self.problems(), ["Learning rate, all: nothing of mpt-b"])

    def test_a_query_that_is_empty_for_one_choice_of_the_viewer_is_a_problem(self) -> None:
        self.api.unlike['mpt_examples_per_second{job=~".+", instance=~".+", device=~"cpu:0"}'] = []
        self.assertEqual(self.problems(), ["Examples/sec per device, by mpt, device cpu:0: no data"])

    def test_what_prometheus_refuses_is_told_in_its_words(self) -> None:
        self.api.unlike["mpt_loss"] = "parse error: unexpected end"
        self.assertEqual(self.problems(), ["Loss, all: parse error: unexpected end"])

    def test_a_variable_without_values_or_with_other_jobs_is_a_problem(self) -> None:
        self.api.series.append(self.api.one(job="node", instance="c", device="cpu:0"))
        self.assertIn("variable job: not just mpt-a, mpt-b", self.problems())

    def test_a_mark_needs_no_data_but_must_be_a_query(self) -> None:
        self.api.unlike["ALERTS"] = []
        self.assertEqual(self.problems(), ["Alerts firing, all: no data"])
        self.api.unlike["ALERTS"] = "bad"
        self.assertIn("annotation Alerts: bad", self.problems())

    def rule(self, kind: str, name: str, query: str, health: str = "ok") -> dict[str, Any]:
        return {"type": kind, "name": name, "query": query, "health": health, "lastError": "why"}

    def test_rules_must_be_healthy_and_what_they_record_there(self) -> None:
        self.api.known = [
            self.rule("recording", "job:a:rate1m", "rate(a[1m])"),
            self.rule("recording", "job:b:rate1m", "rate(b[1m])"),
            self.rule("recording", "job:c:rate1m", "rate(c[1m])", "err"),
        ]
        self.api.unlike["job:b:rate1m"] = []
        self.assertEqual(
            self.problems(), ["rule job:b:rate1m: no data", "rule job:c:rate1m: its health is err: why"]
        )

    def test_an_alert_is_asked_without_what_makes_it_silent(self) -> None:
        self.assertEqual(check.always("a == 0 and on (b) c{d=~\"e\"} > -0.5"), 'a and on (b) c{d=~"e"}')
        self.assertEqual(check.always("up == 0 unless on (b) rate(c[1d]) == 0"), "up and on (b) rate(c[1d])")
        self.api.known = [self.rule("alerting", "Late", "lateness > 3")]
        self.api.unlike["lateness > 3"] = []
        self.assertEqual(self.problems(), [])
        self.api.unlike = {"lateness": []}
        self.assertEqual(self.problems(), ["alert Late: no data"])

    def test_what_is_no_answer_is_told_as_it_came(self) -> None:
        self.assertEqual(prometheus.reason(b'{"status": "error", "error": "bad query"}'), "bad query")
        self.assertEqual(prometheus.reason(b"<html>"), "<html>")
        scalar = {"resultType": "scalar", "result": [0, "1"]}
        self.assertEqual(prometheus.series(scalar), [{"metric": {}, "value": [0, "1"]}])

    def test_it_waits_for_every_run_and_not_for_ever(self) -> None:
        with mock.patch.object(check, "SCRAPE", 0.01):
            check.settle(self.api, JOBS, 5)
            self.api.series.pop()
            with self.assertRaisesRegex(RefusedError, "after 0 s there is nothing of mpt-b"):
                check.settle(self.api, JOBS, 0.05)

    def test_the_table_tells_values_by_what_differs_and_problems_with_their_query(self) -> None:
        found = [
            check.Finding("Loss", "mpt_loss", check.summary(self.api.series)),
            check.Finding("Epoch", "mpt_epoch", "", "no data"),
        ]
        self.assertEqual(
            check.table(found), "  Loss   a mpt-a 1; b mpt-b 1\n  Epoch  \n    PROBLEM: no data: mpt_epoch"
        )


class ExpositionTest(ScratchTest):
    def parsed(self) -> dict[str, dict[str, Any]]:
        """What the reference parser tells of the exporter of these tests."""
        found: dict[str, dict[str, Any]] = {}
        for name, kind, series in families(1.0):
            labels = {label for text, _ in series for label in re.findall(r'(\w+)="', text)}
            plain = name[: -len("_total")] if kind == "counter" else name
            found[plain] = {"type": kind, "labels": sorted(labels), "help": "Something.", "series": len(series)}
        return found

    def test_all_that_is_promised_is_there(self) -> None:
        self.assertEqual(exposition.missing(self.parsed()), [])

    def test_what_lacks_or_differs_is_named(self) -> None:
        parsed = self.parsed()
        del parsed["mpt_build_info"], parsed["mpt_loss"]
        parsed["mpt_phase_seconds"]["labels"] = ["device"]
        parsed["mpt_steps"]["type"] = "gauge"
        parsed["mpt_epoch"]["help"] = ""
        self.assertEqual(
            exposition.missing(parsed),
            [
                "mpt_build_info is not there",
                "mpt_steps is a gauge with the labels ; it should be a counter with none",
                "mpt_phase_seconds is a counter with the labels device; it should be a counter with device, phase",
                "mpt_loss is not there",
                "mpt_epoch has no help",
            ],
        )

    def test_programs_that_refuse_a_text_are_quoted(self) -> None:
        tool = self.scratch / "tool"
        tool.write_text("#!/bin/sh\ncat >/dev/null; echo no counter >&2; exit 3\n")
        tool.chmod(0o755)
        served = exposition.Served("text/html", "text")
        said = [each.split(":")[0] for each in exposition.problems(served, tool, tool, SCRIPTS)]
        kind = "the Content-Type is text/html, which Prometheus 3 does not take for text/plain; version=0.0.4"
        self.assertEqual(said, [kind, "promtool check metrics", "the reference parser"])

    def test_the_parser_is_pinned(self) -> None:
        pinned = rf"(?m)^prometheus-client=={re.escape(PARSER.version)} \\\n +--hash=sha256:"
        self.assertRegex(PARSER.pins.read_text(), pinned)
