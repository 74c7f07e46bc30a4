"""What is checked against the real Prometheus: what counts as an answer, and what happens to the programs it needs."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from monitoring_steps import check, command, exposition, processes, prometheus
from monitoring_steps.command import PARSER
from monitoring_steps.grafana import asked
from monitoring_steps.processes import Process
from monitoring_steps.prometheus import Api, Programs, RefusedError
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from .exporter import families
from .support import SCRIPTS, RepositoryTest, ScratchTest, Server
from .test_dashboard import shipped
from .test_scripts import gone

MONITORING = SCRIPTS.parent / "cluster" / "monitoring"
JOBS = ("mpt-a", "mpt-b")
SELF = f"{sys.executable} -u -c"


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

    def test_every_alert_leads_to_its_dashboard_and_says_how_urgent_it_is(self) -> None:
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
        found = exposition.problems("text", tool, tool, SCRIPTS)
        self.assertEqual(found, ["promtool check metrics: no counter", "the reference parser: no counter"])

    def test_the_parser_is_pinned(self) -> None:
        pinned = rf"(?m)^prometheus-client=={re.escape(PARSER.version)} \\\n +--hash=sha256:"
        self.assertRegex(PARSER.pins.read_text(), pinned)


class ProgramsTest(ScratchTest):
    """Where Prometheus comes from."""

    def setUp(self) -> None:
        super().setUp()
        self.tools = self.scratch / "tools"
        self.tools.mkdir()
        self.enter(mock.patch.dict(os.environ, {"PATH": f"{self.tools}:/usr/bin:/bin"}))
        # Not this machine's own.
        self.enter(mock.patch.object(prometheus, "installed", self.installed))
        self.places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        self.said = io.StringIO()

    def installed(self) -> Programs | None:
        found = Programs(self.tools / "prometheus", self.tools / "promtool")
        return found if found.prometheus.exists() else None

    def tool(self, name: str, text: str) -> None:
        (self.tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.tools / name).chmod(0o755)

    def programs(self) -> Programs:
        return prometheus.programs(self.places, Console(self.said), Children())

    def test_the_machines_own_is_taken(self) -> None:
        self.tool("prometheus", "")
        self.assertEqual(self.programs().prometheus, self.tools / "prometheus")
        self.assertEqual(self.said.getvalue(), "")

    def test_debians_package_is_unpacked_once_and_not_installed(self) -> None:
        self.tool("apt-get", f'echo "$*" >> {self.scratch}/calls; : > prometheus_2_amd64.deb')
        self.tool("dpkg-deb", '[ "$1" = --extract ] && mkdir -p "$3/usr/bin" && : > "$3/usr/bin/promtool"')
        home = self.places.cache / "prometheus-debian"
        self.assertEqual(self.programs().promtool, home / "usr" / "bin" / "promtool")
        self.assertEqual(sorted(each.name for each in home.iterdir()), ["usr"])
        self.programs()
        self.assertEqual((self.scratch / "calls").read_text(), "download --quiet prometheus\n")
        self.assertEqual(self.said.getvalue().count("unpacking"), 1)

    def test_a_machine_that_cannot_have_it_is_told_so(self) -> None:
        self.tool("apt-get", "echo E: no such package; exit 100")
        self.tool("dpkg-deb", "")
        with self.assertRaisesRegex(SetupError, "lacks prometheus, .*no such package.*: Debian: apt-get install"):
            self.programs()
        with mock.patch.dict(os.environ, {"PATH": str(self.scratch)}):
            with self.assertRaisesRegex(SetupError, "lacks prometheus and promtool \\(Debian"):
                self.programs()

    def test_the_configuration_is_the_shipped_one_but_for_targets_and_intervals(self) -> None:
        made = prometheus.configured(MONITORING / "prometheus", self.scratch / "made", {"mpt-a": "127.0.0.1:1"})
        shipped_lines = shipped_text("prometheus", "prometheus.yml").splitlines()
        others = [pair for pair in zip(shipped_lines, made.read_text().splitlines()) if pair[0] != pair[1]]
        self.assertEqual([other for _, other in others], ["  scrape_interval: 1s", "  evaluation_interval: 1s"])
        self.assertEqual(
            json.loads((self.scratch / "made" / "targets" / "mpt.yml").read_text()),
            [{"targets": ["127.0.0.1:1"], "labels": {"job": "mpt-a"}}],
        )


class ProcessTest(ScratchTest):
    def start(self, program: str) -> Process:
        process = Process("it", [*SELF.split(), program], self.scratch, os.environ)
        self.addCleanup(process.end)
        return process

    def test_lines_are_heard_as_they_come(self) -> None:
        process = self.start("print('at http://127.0.0.1:9/ now'); import time; time.sleep(60)")
        self.assertEqual(process.wait_for(r"http://(\S+)/", 30)[1], "127.0.0.1:9")
        self.assertTrue(process.running())

    def test_two_parts_of_a_program_may_say_their_lines_in_either_order(self) -> None:
        for said in ("print('at 1'); print('ready')", "print('ready'); print('at 1')"):
            process = self.start(f"{said}; import time; time.sleep(60)")
            self.assertEqual(process.wait_for(r"at (\d)", 30, "ready")[1], "1")
        process = self.start("print('at 1'); import time; time.sleep(60)")
        with self.assertRaisesRegex(SetupError, "it has not said 'ready' after 0 s"):
            process.wait_for(r"at (\d)", 0.2, "ready")

    def test_a_program_that_ends_is_quoted_with_its_exit_code(self) -> None:
        process = self.start("print('address in use'); raise SystemExit(2)")
        with self.assertRaisesRegex(SetupError, "it ended, exit code 2; its last lines:\n  address in use"):
            process.wait_for("ready", 30)

    def test_a_program_that_does_not_say_it_is_not_waited_for_forever(self) -> None:
        process = self.start("import time; time.sleep(60)")
        with self.assertRaisesRegex(SetupError, "it has not said 'ready' after 0 s"):
            process.wait_for("ready", 0.05)

    def test_a_program_that_is_not_there_is_named(self) -> None:
        with self.assertRaisesRegex(SetupError, "/nowhere/mpt cannot be started \\(No such file or directory\\)"):
            Process("it", ["/nowhere/mpt"], self.scratch, os.environ)

    def test_it_ends_with_all_that_it_started(self) -> None:
        program = "import subprocess; child = subprocess.Popen(['sleep', '60']); print(child.pid); child.wait()"
        with self.start(program) as process:
            child = int(process.wait_for(r"^\d+$", 30)[0])
            self.assertTrue(Path(f"/proc/{child}").exists())
        self.assertFalse(process.running())
        self.assertTrue(gone(child))

    def test_only_the_first_signal_interrupts(self) -> None:
        ended = []
        before = signal.getsignal(signal.SIGINT)
        with processes.interruptible():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt as interruption:
                os.kill(os.getpid(), signal.SIGINT)
                ended.append(interruption.args[0])
        self.assertEqual(ended, [signal.SIGTERM])
        self.assertIs(signal.getsignal(signal.SIGINT), before)


class CommandTest(ScratchTest):
    def call(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [SCRIPTS / script, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def test_a_call_that_is_none_shows_the_usage(self) -> None:
        self.assertEqual(self.call("monitoring").returncode, 2)
        self.assertEqual(self.call("monitoring", "check", "it").returncode, 2)
        helped = self.call("monitoring", "--help")
        self.assertEqual((helped.returncode, helped.stderr), (0, ""))
        self.assertIn("Usage: scripts/monitoring write", helped.stdout)

    def test_what_promtool_refuses_is_a_problem(self) -> None:
        tool = self.scratch / "promtool"
        tool.write_text('#!/bin/sh\necho "$* in $(basename "$PWD")"; [ "$1" = check ]\n')
        tool.chmod(0o755)
        with mock.patch("sys.stdout", io.StringIO()):
            found = command.files(MONITORING / "prometheus", Programs(tool, tool))
        self.assertEqual(found, ["promtool test rules tests.yml:\ntest rules tests.yml in prometheus\n"])


class DemoTest(RepositoryTest):
    """The demo with an exporter for mpt and a Prometheus that only says where it listens."""

    PROMETHEUS = """#!/bin/sh
echo "$*" >> "$CALLS.prometheus"
echo $$ > "$CALLS.pid"
echo "level=info msg=\\"Listening on\\" address=$LISTENS"
if [ -n "$BROKEN" ]; then echo "no memory"; exit 1; fi
echo 'msg="Server is ready to receive web requests."'
sleep 60 & wait
"""

    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(MONITORING, self.root / "cluster" / "monitoring")
        exporter = Path(__file__).with_name("exporter.py")
        self.tool("cargo", f"#!/bin/sh\nmkdir -p target/release && cp {exporter} target/release/mpt\n")
        self.tool("prometheus", self.PROMETHEUS)
        self.tool("promtool", "#!/bin/sh\n")
        self.pages = Server()
        self.enter(self.pages.running())
        self.environment["LISTENS"] = urlsplit(self.pages.url).netloc
        self.environment["TMPDIR"] = str(self.scratch / "tmp")
        (self.scratch / "tmp").mkdir()

    def test_the_pages_are_where_debian_has_them_or_where_all_others_do(self) -> None:
        for files, place in (({}, ""), ({"classic/graph": b"<html>"}, "classic/")):
            self.pages.files = files
            process = self.demo()
            shown = self.heard(process, "Prometheus").splitlines()[-1]
            self.assertTrue(shown.split()[-1].startswith(f"{self.pages.url}{place}graph?g0.expr=sum+by"), shown)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def demo(self, **environment: str) -> subprocess.Popen:
        command = [sys.executable, self.root / "scripts" / "demo-monitoring", "--set", "data.source=synthetic"]
        process = subprocess.Popen(
            command, env={**self.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(process.kill)
        return process

    def nothing_is_left(self) -> None:
        self.assertEqual(list((self.scratch / "tmp").iterdir()), [])
        self.assertTrue(gone(int(self.calls.with_name("calls.pid").read_text())))

    def test_it_says_where_to_look_and_ends_with_ctrl_c(self) -> None:
        process = self.demo()
        said = self.heard(process, "Ctrl-C ends both")
        run = said.splitlines()[0].split()[-1]
        self.assertIn(str(self.root / "cluster/monitoring/grafana/dashboards/mpt.json"), said)
        with urllib.request.urlopen(f"{run}metrics", timeout=10) as answer:
            self.assertIn("mpt_build_info", answer.read().decode())
        configuration = re.search(r"--config.file=(\S+)", self.calls.with_name("calls.prometheus").read_text())
        assert configuration
        targets = json.loads((Path(configuration[1]).parent / "targets" / "mpt.yml").read_text())
        self.assertEqual(targets[0]["targets"], [run.split("/")[2]])
        process.send_signal(signal.SIGINT)
        _, last = process.communicate(timeout=30)
        self.assertEqual((process.returncode, last.splitlines()[-1]), (0, "mpt: both have ended"))
        with self.assertRaises(OSError):
            urllib.request.urlopen(run, timeout=10)
        self.nothing_is_left()

    def test_a_prometheus_that_ends_is_quoted_and_ends_the_demo(self) -> None:
        process = self.demo(BROKEN="yes")
        _, last = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("mpt: Prometheus ended, exit code 1; its last lines:", last)
        self.assertIn("no memory", last)
        self.nothing_is_left()

    def test_a_prometheus_that_dies_later_ends_the_demo_too(self) -> None:
        process = self.demo()
        self.heard(process, "Ctrl-C ends both")
        os.kill(int(self.calls.with_name("calls.pid").read_text()), signal.SIGKILL)
        _, last = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("mpt: Prometheus ended; its last lines:", last)
        self.nothing_is_left()

    def test_a_training_that_ends_is_quoted_and_prometheus_stays(self) -> None:
        ends = "#!/bin/sh\\necho at http://127.0.0.1:9/\\necho loss 0.3\\n"
        program = "target/release/mpt"
        self.tool("cargo", f"#!/bin/sh\nmkdir -p target/release; printf '{ends}' > {program}; chmod +x {program}\n")
        process = self.demo()
        said = self.heard(process, "Ctrl-C ends Prometheus")
        self.assertIn("the training has ended:\nat http://127.0.0.1:9/\nloss 0.3\n", said)
        self.assertTrue(Path("/proc", self.calls.with_name("calls.pid").read_text().strip()).exists())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0)
        self.nothing_is_left()

    def heard(self, process: subprocess.Popen, last: str) -> str:
        """What the demo prints up to a line that begins like this."""
        assert process.stdout is not None
        said = [process.stdout.readline()]
        while not said[-1].startswith(last):
            self.assertTrue(said[-1], said)
            said.append(process.stdout.readline())
        return "".join(said)

    def test_without_prometheus_it_says_how_to_get_it(self) -> None:
        result = subprocess.run(
            [sys.executable, self.root / "scripts" / "demo-monitoring"],
            env={**self.environment, "PATH": str(self.scratch)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = "mpt: this machine lacks prometheus and promtool (Debian: apt-get install prometheus)\n"
        self.assertEqual((result.returncode, result.stderr), (2, said))
