"""The programs of monitoring: where Prometheus comes from, how they are started, heard and ended, and the demo."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

from monitoring_steps import command, processes, prometheus
from monitoring_steps.processes import Process
from monitoring_steps.prometheus import Programs
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from .support import SCRIPTS, RepositoryTest, ScratchTest, Server
from .test_monitoring import MONITORING, shipped_text
from .test_scripts import gone

SELF = f"{sys.executable} -u -c"


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
