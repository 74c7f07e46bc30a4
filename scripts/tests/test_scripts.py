"""The scripts as they are called, in a repository whose tools only pretend."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

from .support import RepositoryTest


class CallTest(RepositoryTest):
    def test_the_first_call_builds_and_the_second_says_nothing(self) -> None:
        first = self.call("mpt", "show", "model", "le net")
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertIn("mpt: preparing what this machine lacks", first.stderr)
        self.assertIn("mpt: ready in", first.stderr)
        self.assertEqual(first.stdout, f"ran show model le net in {self.scratch / 'elsewhere'}\n")
        second = self.call("mpt", "show", EXITS="75")
        self.assertEqual((second.returncode, second.stderr), (75, ""))
        self.assertEqual(len(self.calls.read_text().splitlines()), 1)

    def test_a_changed_source_builds_again_without_announcement(self) -> None:
        self.call("mpt", "show")
        later = time.time() + 5
        os.utime(self.root / "src" / "main.rs", (later, later))
        again = self.call("mpt", "show")
        self.assertEqual((again.returncode, again.stderr), (0, ""))
        self.assertEqual(len(self.calls.read_text().splitlines()), 2)

    def test_a_changed_simulator_builds_again(self) -> None:
        source = self.root / "simulator" / "src" / "lib.rs"
        source.parent.mkdir(parents=True)
        source.write_text("")
        self.call("mpt", "show")
        later = time.time() + 5
        os.utime(source, (later, later))
        self.call("mpt", "show")
        self.assertEqual(len(self.calls.read_text().splitlines()), 2)

    def test_a_change_that_needs_no_linking_is_built_once(self) -> None:
        self.call("mpt", "show")
        earlier = time.time() - 100
        os.utime(self.root / "target" / "release" / "mpt", (earlier, earlier))
        for _ in range(2):
            again = self.call("mpt", "show", CARGO_LINKS_NOTHING="1")
            self.assertEqual((again.returncode, again.stderr), (0, ""))
        self.assertEqual(len(self.calls.read_text().splitlines()), 2)

    def test_a_failed_build_shows_what_cargo_said(self) -> None:
        result = self.call("mpt", "show", CARGO_SAYS="error: expected one of `;` or `}`")
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stderr.endswith("end of cargo's output:\nerror: expected one of `;` or `}`\n"))

    def test_set_up_alone(self) -> None:
        self.assertEqual(self.call("setup", "--without-data").returncode, 0)
        self.assertIn("everything is there", self.call("setup", "--without-data").stderr)
        self.assertEqual(self.call("setup", "--wrong").returncode, 2)
        self.assertIn("Usage", self.call("setup", "--help").stdout)

    def test_an_interruption_ends_cargo_and_all_it_started(self) -> None:
        command = [sys.executable, self.root / "scripts" / "setup", "--without-data"]
        environment = {**self.environment, "CARGO_SLEEPS": "60"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        sleeper = self.calls.with_name("calls.sleeper")
        while not (sleeper.exists() and sleeper.read_text()):
            self.assertIsNone(process.poll())
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
        self.assertEqual(process.returncode, 130)
        self.assertTrue(said.endswith("mpt: interrupted; running the same command again goes on from here\n"), said)
        self.assertTrue(gone(int(sleeper.read_text())))


class LackTest(RepositoryTest):
    def lacks(self, script: str = "mpt") -> str:
        result = self.call(script, "show")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        return result.stderr.splitlines()[-1]

    def test_no_python(self) -> None:
        self.only_tools("bash", "dirname", "readlink", "env")
        self.assertIn("lacks python3", self.lacks())

    def test_no_compiler_and_no_rust_are_named_together(self) -> None:
        self.only_tools("bash", "dirname", "readlink", "env", "python3")
        self.assertRegex(self.lacks(), "lacks a C\\+\\+ compiler .*; and Rust, that is cargo and rustc")

    def test_no_linker(self) -> None:
        self.only_tools("bash", "dirname", "readlink", "env", "python3", "c++", "cargo", "rustc")
        self.assertIn("lacks a linker called cc", self.lacks())

    def test_an_old_rust(self) -> None:
        self.tool("rustc", "#!/bin/sh\necho rustc 1.74.1\n")
        self.assertIn("lacks Rust 1.95 or newer, for this is 1.74 (`rustup update`)", self.lacks())

    def test_a_rust_that_does_not_run(self) -> None:
        self.tool("rustc", "#!/bin/sh\necho error: rustup could not choose a version >&2; exit 1\n")
        self.assertIn("a rustc that runs (it says: error: rustup could not choose a version)", self.lacks())

    def test_no_pip(self) -> None:
        (self.root / ".libtorch").unlink()
        shutil.rmtree(self.scratch / "cache")
        blocked = self.scratch / "modules" / "pip"
        blocked.mkdir(parents=True)
        (blocked / "__init__.py").write_text("raise ImportError\n")
        self.environment["PYTHONPATH"] = str(blocked.parent)
        self.assertIn("lacks pip for ", self.lacks())

    def test_a_cache_that_cannot_be_made(self) -> None:
        (self.root / ".libtorch").unlink()
        (self.scratch / "file").write_text("")
        self.environment["XDG_CACHE_HOME"] = str(self.scratch / "file")
        self.assertIn("set XDG_CACHE_HOME", self.lacks())


class InstallTest(RepositoryTest):
    def setUp(self) -> None:
        super().setUp()
        data = self.scratch / "cache" / "mpt" / "data" / "fashion-mnist"
        data.mkdir(parents=True)
        files = [f"{half}-{kind}-ubyte.gz" for half in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
        for name in (".complete", *files):
            (data / name).write_text("")
        self.prefix = self.scratch / "prefix"
        self.program = self.prefix / "bin" / "mpt"

    def test_it_installs_and_removes(self) -> None:
        result = self.call("install", "--prefix", str(self.prefix))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(f'export PATH="{self.prefix}/bin:$PATH"', result.stderr)
        told = subprocess.run([self.program, "plan"], cwd=self.scratch, capture_output=True, text=True)
        self.assertEqual(told.stdout, f"ran plan in {self.scratch}\n")
        # `mpt rehearse` looks for the simulator there.
        installed = {path.name: path.read_text() for path in self.program.parent.iterdir()}
        self.assertEqual(set(installed), {"mpt", "libmpt_simulator.so"})
        self.assertEqual(installed["libmpt_simulator.so"], "simulated\n")
        self.assertEqual(self.call("install", f"--prefix={self.prefix}", "--uninstall").returncode, 0)
        self.assertEqual(list(self.program.parent.iterdir()), [])
        self.assertIn("there is no", self.call("install", f"--prefix={self.prefix}", "--uninstall").stderr)

    def test_it_goes_to_the_home_folder_and_knows_the_path(self) -> None:
        bin_folder = self.scratch / "home" / ".local" / "bin"
        result = self.call("install", PATH=f"{self.environment['PATH']}:{bin_folder}")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue((bin_folder / "mpt").exists())
        self.assertNotIn("not on your PATH", result.stderr)

    def test_another_program_is_left_alone(self) -> None:
        self.program.parent.mkdir(parents=True)
        self.program.write_text("somebody else's")
        for more in ([], ["--uninstall"]):
            result = self.call("install", f"--prefix={self.prefix}", *more)
            self.assertEqual(result.returncode, 2)
            self.assertIn("is another program", result.stderr)
        self.assertEqual(self.program.read_text(), "somebody else's")


def gone(number: int) -> bool:
    """Whether a process ends within a few seconds; one that nobody has waited for is as good as gone."""
    for _ in range(100):
        try:
            with open(f"/proc/{number}/stat", encoding="ascii") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False
