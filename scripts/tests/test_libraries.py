"""The libraries that mpt is compared with: whole or not there, made of what is pinned, each installed once."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path
from unittest import mock

from libraries import environment
from libraries.environment import JAX, PYTORCH, SAFETENSORS, TENSORBOARD, Library, packages_of, python_of
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.pins import LIBTORCH_VERSION
from setup_steps.places import Places

from .support import ScratchTest


class Installer:
    """Instead of pip's index: notes what it is asked for, and installs a module called like the requirements file."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails: str | None = None

    def __call__(self, _places: Places, _children: Children) -> Installer:
        return self

    def install(self, python: Path, pins: Path, temporary: Path, _tell: object) -> None:
        self.asked.append(pins.stem)
        (temporary / "wheel").write_text("")
        (packages_of(python.parent.parent) / f"{pins.stem}.py").write_text("")
        if self.fails == pins.stem:
            raise SetupError("the index is gone")


class EnvironmentTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.installer = Installer()
        self.enter(mock.patch.object(environment, "Index", self.installer))
        self.enter(mock.patch.object(environment.machine, "lacks_disk", lambda needs: []))
        self.enter(mock.patch.object(environment, "PYTHONS", ((3, 9), (99, 0))))
        self.places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        self.said = io.StringIO()
        self.first = self.library("first")
        self.second = self.library("second", self.first)

    def library(self, name: str, base: Library | None = None) -> Library:
        pins = self.scratch / f"{name}.txt"
        pins.write_text(f"# What {name} needs.\n{name}==1\n")
        return Library(name, "1", pins, 2_000_000_000, 3_000_000_000, 60, base)

    def prepare(self, library: Library) -> Path:
        return environment.prepare(library, self.places, Console(self.said), Children())

    def test_it_is_announced_and_installed_once(self) -> None:
        home = self.first.home(self.places)
        self.assertEqual(self.prepare(self.first), python_of(home))
        self.assertIn("mpt: installing first 1 to compare with; mpt itself does not need it\n", self.said.getvalue())
        self.assertIn("download  2.0 GB", self.said.getvalue())
        self.assertTrue((packages_of(home) / "first.py").exists())
        self.assertFalse((home / "temporary").exists())
        self.prepare(self.first)
        self.assertEqual(self.installer.asked, ["first"])

    def test_what_it_builds_on_is_installed_first_and_seen(self) -> None:
        python = self.prepare(self.second)
        self.assertIn("mpt: installing first 1 and second 1 to compare with", self.said.getvalue())
        self.assertIn("download  4.0 GB", self.said.getvalue())
        subprocess.run([python, "-c", "import first, second"], check=True)
        alone = subprocess.run([self.prepare(self.first), "-c", "import second"], capture_output=True)
        self.assertNotEqual(alone.returncode, 0, "what builds on a library is no part of it")
        self.assertEqual(self.installer.asked, ["first", "second"])

    def test_other_pins_are_another_environment_and_other_words_are_not(self) -> None:
        self.prepare(self.second)
        self.first.pins.write_text("# Said otherwise.\nfirst==1\n")
        self.assertTrue(self.first.ready(self.places))
        self.first.pins.write_text("first==2\n")
        self.assertFalse(self.first.ready(self.places))
        self.prepare(self.second)
        self.assertEqual(self.installer.asked, ["first", "second", "first"])

    def test_what_was_begun_is_never_taken_for_whole(self) -> None:
        self.installer.fails = "second"
        with self.assertRaisesRegex(SetupError, "the index is gone"):
            self.prepare(self.second)
        self.assertTrue(self.first.ready(self.places))
        self.assertFalse(self.second.home(self.places).exists())
        self.installer.fails = None
        self.prepare(self.second)
        self.assertEqual(self.installer.asked, ["first", "second", "second"])

    def test_a_python_without_wheels_is_refused(self) -> None:
        lacks = r"lacks a python3 that the pinned first and second are for, from 3\.0 to 3\.1 \(this is "
        with mock.patch.object(environment, "PYTHONS", ((3, 0), (3, 1))):
            with self.assertRaisesRegex(SetupError, lacks):
                self.prepare(self.second)


class PinsTest(ScratchTest):
    def pins(self, library: Library) -> list[str]:
        text = library.pins.read_text(encoding="ascii").replace(" \\\n", "")
        return [line for line in text.splitlines() if not line.startswith("#")]

    def test_every_package_is_pinned_with_checksums_for_every_python(self) -> None:
        (_, oldest), (_, newest) = environment.PYTHONS
        for library in (PYTORCH, SAFETENSORS, JAX, TENSORBOARD):
            for line in self.pins(library):
                self.assertRegex(line, r"^[a-z0-9-]+==[0-9.]+(    --hash=sha256:[0-9a-f]{64})+$")
            # A wheel for each Python, or one for all.
            counts = {len(re.findall("sha256", line)) for line in self.pins(library)}
            self.assertLessEqual(counts, {1, newest - oldest + 1})

    def test_a_library_is_of_its_version_and_no_package_is_pinned_twice(self) -> None:
        libraries = (PYTORCH, SAFETENSORS, JAX, TENSORBOARD)
        packages = {library.name: [line.split()[0] for line in self.pins(library)] for library in libraries}
        self.assertIn(f"torch=={LIBTORCH_VERSION}", packages["PyTorch"])
        self.assertIn(f"safetensors=={SAFETENSORS.version}", packages["safetensors"])
        self.assertIn(f"jax=={JAX.version}", packages["JAX"])
        self.assertIn(f"tensorboard=={TENSORBOARD.version}", packages["TensorBoard"])
        names = [package.split("==")[0] for package in packages["PyTorch"] + packages["safetensors"] + packages["JAX"]]
        self.assertEqual(len(names), len(set(names)))
