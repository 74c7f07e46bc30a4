"""PyTorch's environment: whole or not there, and made of what is pinned."""

from __future__ import annotations

import io
import re
from pathlib import Path
from unittest import mock

from parity_steps import environment
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.pins import LIBTORCH_VERSION
from setup_steps.places import Places

from .support import RepositoryTest, ScratchTest


class Installer:
    """Instead of pip's index: notes what it is asked for."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails = False

    def __call__(self, _places: Places, _children: Children) -> Installer:
        return self

    def install(self, python: Path, _pins: Path, temporary: Path, _tell: object) -> None:
        self.calls += 1
        (temporary / "wheel").write_text("")
        (python.parent / "installed").write_text("")
        if self.fails:
            raise SetupError("the index is gone")


class EnvironmentTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.installer = Installer()
        self.enter(mock.patch.object(environment, "Index", self.installer))
        self.enter(mock.patch.object(environment.machine, "lacks_disk", lambda needs: []))
        self.enter(mock.patch.object(environment, "NEWEST_PYTHON", (99, 0)))
        self.pins = self.scratch / "requirements.txt"
        self.pins.write_text("torch==1\n")
        self.enter(mock.patch.object(environment, "REQUIREMENTS", self.pins))
        self.places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        self.home = self.places.cache / f"pytorch-{LIBTORCH_VERSION}"
        self.said = io.StringIO()

    def prepare(self) -> Path:
        return environment.prepare(self.places, Console(self.said), Children())

    def test_it_is_announced_and_installed_once(self) -> None:
        self.assertEqual(self.prepare(), self.home / "bin" / "python")
        self.assertIn("download  2.8 GB", self.said.getvalue())
        self.assertTrue((self.home / "bin" / "installed").exists())
        self.assertFalse((self.home / "temporary").exists())
        self.prepare()
        self.assertEqual(self.installer.calls, 1)

    def test_other_pins_are_another_environment(self) -> None:
        self.prepare()
        self.pins.write_text("torch==2\n")
        self.assertFalse(environment.ready(self.home))
        self.prepare()
        self.assertEqual(self.installer.calls, 2)
        self.assertTrue(environment.ready(self.home))

    def test_what_was_begun_is_never_taken_for_whole(self) -> None:
        self.installer.fails = True
        with self.assertRaisesRegex(SetupError, "the index is gone"):
            self.prepare()
        self.assertFalse(self.home.exists())
        self.installer.fails = False
        self.prepare()
        self.assertTrue(environment.ready(self.home))

    def test_a_python_without_wheels_is_refused(self) -> None:
        with mock.patch.object(environment, "NEWEST_PYTHON", (3, 0)):
            with self.assertRaisesRegex(
                SetupError, r"lacks a python3 that the pinned PyTorch is for, that is up to 3\.0"
            ):
                self.prepare()


class PinsTest(ScratchTest):
    def test_every_package_is_pinned_with_checksums_and_pytorch_is_the_one_of_set_up(self) -> None:
        text = environment.REQUIREMENTS.read_text(encoding="ascii").replace(" \\\n", "")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        for line in lines:
            self.assertRegex(line, r"^[a-z0-9-]+==[0-9.]+(    --hash=sha256:[0-9a-f]{64})+$")
        pythons = environment.NEWEST_PYTHON[1] - 10
        self.assertEqual({len(re.findall("sha256", line)) for line in lines}, {1, pythons})
        self.assertTrue(any(line.startswith(f"torch=={LIBTORCH_VERSION} ") for line in lines))


class CommandTest(RepositoryTest):
    def test_it_wants_to_know_what_to_do(self) -> None:
        for arguments in ([], ["wrong"], ["check", "twice"]):
            result = self.call("parity", *arguments)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(result.stdout, "")
