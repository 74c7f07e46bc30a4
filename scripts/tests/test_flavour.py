"""Who gets NVIDIA's libraries: who has a driver for them, or asks."""

from __future__ import annotations

import os
import re
from unittest import mock

from libraries.environment import PYTORCH
from setup_steps import announce, cuda, flavour, libtorch, pins, sequence
from setup_steps.console import SetupError
from setup_steps.places import Places
from setup_steps.sequence import Part

from .support import SCRIPTS, RepositoryTest, ScratchTest


class DriverTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.version = self.scratch / "version"
        self.enter(mock.patch.object(flavour, "DRIVER_FILE", self.version))
        self.enter(mock.patch.object(flavour, "DRIVER_LIBRARY", "libthere-is-none.so.1"))

    def wants(self, chosen: str = "") -> bool:
        with mock.patch.dict(os.environ, {flavour.VARIABLE: chosen}):
            return flavour.wants_cuda()

    def test_without_a_driver_nothing_is_wanted(self) -> None:
        self.assertFalse(self.wants())

    def test_a_driver_that_runs_or_that_the_loader_finds(self) -> None:
        with mock.patch.object(flavour, "DRIVER_LIBRARY", "libc.so.6"):
            self.assertTrue(self.wants())
        self.version.write_text("NVRM version: 580.65.06\n")
        self.assertTrue(self.wants())

    def test_the_variable_has_the_last_word(self) -> None:
        self.assertTrue(self.wants("cuda"))
        self.version.write_text("NVRM version: 580.65.06\n")
        self.assertFalse(self.wants("cpu"))
        with self.assertRaisesRegex(SetupError, "MPT_FLAVOUR is gpu: it can be cpu or cuda"):
            self.wants("gpu")


class MissingTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        (self.scratch / "Cargo.lock").write_text("")
        self.places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")

    def test_who_wants_none_is_told_of_none(self) -> None:
        missing = announce.look(self.places, False)
        self.assertEqual((missing.cuda, missing.cuda_wheels, missing.cuda_unpacked), (False, 0, 0))
        self.assertNotIn("NVIDIA", announce.announcement(missing, self.places))

    def test_the_download_is_announced_with_its_size(self) -> None:
        with mock.patch.dict(os.environ, {flavour.VARIABLE: "cuda"}):
            missing = announce.look(self.places, False, pins.CUDA_WHEELS)
            said = announce.announcement(missing, self.places)
        self.assertIn("libtorch 2.13.0 540 MB, NVIDIA's libraries 2.0 GB (MPT_FLAVOUR=cpu does without)", said)
        needs = announce.disk_needs(missing, self.places)[self.places.cache]
        self.assertGreater(needs, 6_000_000_000)

    def test_nvidias_libraries_alone_are_work_too(self) -> None:
        (self.places.libtorch / "link").mkdir(parents=True)
        (self.places.libtorch / libtorch.STAMP).write_text("")
        libtorch.point(self.places)
        self.places.program.parent.mkdir(parents=True)
        self.places.program.write_text("")
        missing = announce.look(self.places, False, pins.CUDA_WHEELS)
        self.assertTrue(missing.anything and missing.heavy)
        parts = sequence.due(missing, self.places, pins.CUDA_WHEELS, mock.Mock(), mock.Mock())
        self.assertEqual(set(parts), {cuda.PART})
        self.assertRegex(announce.estimate(missing), "about 4 minutes .* at 10 MB a second")


class OrderTest(ScratchTest):
    def test_parts_wait_for_those_before_them_and_for_no_others(self) -> None:
        ran: list[str] = []
        part = lambda name, *after: Part(lambda: ran.append(name), frozenset(after))  # noqa: E731
        took = sequence.work({"c": part("c", "b"), "b": part("b", "a", "not to be done"), "a": part("a")})
        self.assertEqual(ran, ["a", "b", "c"])
        self.assertEqual(set(took), {"a", "b", "c"})

    def test_the_first_failure_ends_the_work(self) -> None:
        def fail() -> None:
            raise SetupError("no network")

        with self.assertRaisesRegex(SetupError, "no network"):
            sequence.work({"a": Part(fail), "b": Part(lambda: self.fail("it must not begin"), frozenset({"a"}))})


class PinsTest(ScratchTest):
    def test_they_are_what_pytorchs_wheel_demands(self) -> None:
        home = (SCRIPTS.parent / ".libtorch").resolve().parent
        demands = (home / f"torch-{pins.LIBTORCH_VERSION}.dist-info" / "METADATA").read_text(encoding="utf-8")
        demanded = set(re.findall(r"^Requires-Dist: (nvidia-\S+==[\d.]+)", demands, re.MULTILINE))
        self.assertEqual(len(demanded), 4)
        self.assertLessEqual(demanded, {wheel.requirement for wheel in pins.CUDA_WHEELS})

    def test_they_are_those_that_the_tests_against_pytorch_run_with(self) -> None:
        text = PYTORCH.pins.read_text(encoding="ascii").replace(" \\\n", "")
        pinned = dict(re.findall(r"^(nvidia-\S+) +--hash=sha256:(\w+)$", text, re.MULTILINE))
        ours = (*pins.LIBTORCH_WHEELS, *pins.CUDA_WHEELS)
        self.assertEqual({wheel.requirement: wheel.sha256 for wheel in ours if "nvidia" in wheel.requirement}, pinned)


class CallTest(RepositoryTest):
    NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_NO_INDEX": "0"}

    def test_asked_for_they_are_announced_before_anything_is_fetched(self) -> None:
        result = self.call("mpt", "show", MPT_FLAVOUR="cuda", **self.NOWHERE)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("NVIDIA's libraries 2.0 GB", result.stderr)

    def test_nccl_alone_is_for_tests(self) -> None:
        result = self.call("setup", "--without-data", "--with-nccl", **self.NOWHERE)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("NVIDIA's libraries 206 MB\n", result.stderr)

    def test_a_flavour_that_there_is_not(self) -> None:
        result = self.call("mpt", "show", MPT_FLAVOUR="rocm")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1)
