"""What is said of a machine."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from setup_steps import announce, build, machine
from setup_steps.console import SetupError, megabytes, seconds
from setup_steps.children import Outcome

from .support import ScratchTest


class MachineTest(ScratchTest):
    def test_sizes_and_durations_for_people(self) -> None:
        self.assertEqual([megabytes(31e6), megabytes(1.15e9)], ["31 MB", "1.1 GB"])
        self.assertEqual([seconds(0.31), seconds(61.2), seconds(184)], ["0.3 s", "61 s", "3 min 04 s"])

    def test_other_machines_are_unfit(self) -> None:
        with mock.patch("platform.machine", return_value="aarch64"):
            self.assertIn("an x86-64 Linux machine (this is Linux on aarch64)", machine.unfit())
        for library, says in ((("glibc", "2.17"), "glibc 2.17"), (("", ""), "another")):
            with mock.patch("platform.machine", return_value="x86_64"), mock.patch(
                "platform.libc_ver", return_value=library
            ):
                self.assertIn(f"(this is {says}", machine.unfit()[0])

    def test_what_lies_on_one_disk_counts_together(self) -> None:
        here = {self.scratch / "a": 600, self.scratch / "b" / "c": 500}
        with mock.patch.object(machine, "free_disk", return_value=1000):
            lacks = machine.lacks_disk(here)
        self.assertEqual(len(lacks), 1)
        self.assertIn(f"needed on the file system of {self.scratch / 'a'}", lacks[0])
        with mock.patch.object(machine, "free_disk", return_value=1100):
            self.assertEqual(machine.lacks_disk(here), [])

    def test_versions_compare_as_numbers(self) -> None:
        self.assertLess(machine.version("rustc 1.9.0"), machine.version("1.95"))

    def test_an_estimate_covers_what_is_missing(self) -> None:
        nothing = announce.Missing(False, 0, 0, False, False, False, 0)
        with mock.patch.object(machine, "cores", return_value=2):
            self.assertIn("about half a minute on 2 cores", announce.estimate(nothing._replace(data=True)))
            everything = nothing._replace(libtorch=True, wheels=540_000_000, unpacked=1, program=True, data=True)
            self.assertIn("minutes on 2 cores, at 10 MB a second", announce.estimate(everything))


class BuildTest(ScratchTest):
    def test_what_cargo_says(self) -> None:
        self.assertEqual(build.describe("    Building [=>       ] 34/181: clap, serde(build)"), "34 of 181 crates")
        self.assertEqual(build.describe("    Building [=========>] 180/181"), "180 of 181 crates")
        self.assertEqual(build.describe(" Downloading crates ..."), "downloading crates")
        self.assertEqual(build.describe("    Blocking waiting for file lock"), "waiting for another cargo")
        self.assertEqual(build.describe("warning: unused"), "")

    def test_a_failure_shows_the_end_of_what_cargo_said(self) -> None:
        with self.assertRaises(SetupError) as caught:
            build.fail(Outcome(101, [f"line {number}" for number in range(100)]))
        self.assertNotIn("line 59\n", str(caught.exception))
        self.assertTrue(str(caught.exception).endswith("line 98\nline 99"))
        self.assertEqual(caught.exception.code, 1)

    def test_no_network_is_told_from_a_broken_build(self) -> None:
        with self.assertRaisesRegex(SetupError, "no network: cargo could not download crates"):
            build.fail(
                Outcome(101, ["warning: spurious network error (3 tries remaining): [6] Could not resolve host"])
            )

    def test_every_source_counts(self) -> None:
        for name in ("src/model/deep.rs", "Cargo.toml", "build.rs"):
            path = self.scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (self.scratch / ".libtorch").symlink_to(Path("nowhere"))
        # src, src/model, its file, Cargo.toml, build.rs and the link itself, which need not lead anywhere.
        self.assertEqual(len(list(build.times(self.scratch))), 6)
