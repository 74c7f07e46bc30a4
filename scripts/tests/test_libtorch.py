"""libtorch in the cache: whole or not there."""

from __future__ import annotations

import io
from unittest import mock

from setup_steps import libtorch, wheels
from setup_steps.children import Children
from setup_steps.console import Console, SetupError, Stopped
from setup_steps.places import Places

from .support import ScratchTest, wheel

CONTENTS = {"torch/lib/libtorch_cpu.so": b"cpu", "torch/lib/libc10.so": b"c10", "torch/include/torch.h": b"header"}


class LibtorchTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.wheel, self.body = wheel("torch", CONTENTS)
        self.enter(mock.patch.object(libtorch, "LIBTORCH_WHEELS", (self.wheel,)))
        self.places = Places(self.scratch / "repository", self.scratch / "cache", self.scratch / "target")
        self.places.root.mkdir()
        self.places.wheels.mkdir(parents=True)
        (self.places.wheels / self.wheel.file).write_bytes(self.body)
        self.console = Console(io.StringIO())
        self.children = Children()

    def prepare(self) -> None:
        libtorch.prepare(self.places, self.console, self.children)

    def test_wheels_become_a_folder_with_links_and_a_stamp(self) -> None:
        self.prepare()
        self.assertTrue(libtorch.ready(self.places))
        self.assertEqual((self.places.link / "lib" / "libtorch.so").read_bytes(), b"cpu")
        self.assertEqual((self.places.link / "include" / "torch.h").read_bytes(), b"header")
        self.assertFalse(self.places.wheels.exists())

    def test_a_whole_folder_without_stamp_is_taken_over(self) -> None:
        self.prepare()
        (self.places.libtorch / libtorch.STAMP).unlink()
        with mock.patch.object(wheels, "fetch", side_effect=AssertionError("it is whole")):
            self.prepare()
        self.assertTrue(libtorch.ready(self.places))

    def test_a_folder_that_lacks_a_byte_is_made_anew(self) -> None:
        self.prepare()
        (self.places.libtorch / libtorch.STAMP).unlink()
        library = self.places.libtorch / "torch" / "lib" / "libtorch_cpu.so"
        library.write_bytes(b"cp")
        self.assertFalse(libtorch.whole(self.places.libtorch))
        self.places.wheels.mkdir()
        (self.places.wheels / self.wheel.file).write_bytes(self.body)
        self.prepare()
        self.assertEqual(library.read_bytes(), b"cpu")

    def test_an_interrupted_unpacking_is_never_taken_for_a_whole_one(self) -> None:
        self.children.stop()
        with self.assertRaises(Stopped):
            libtorch.unpack(self.places, self.console, self.children)
        self.assertFalse(self.places.libtorch.exists())
        self.assertFalse(libtorch.ready(self.places))

    def test_a_damaged_wheel_is_not_used(self) -> None:
        (self.places.wheels / self.wheel.file).write_bytes(self.body[:-1])
        self.assertFalse(wheels.there(self.places, self.wheel))
        self.assertEqual(wheels.bytes_left(self.places, [self.wheel]), self.wheel.size)

    def test_the_link_follows_the_cache_and_nothing_else_is_overwritten(self) -> None:
        self.places.link.symlink_to(self.scratch / "gone")
        self.prepare()
        self.assertTrue(libtorch.ready(self.places))
        self.places.link.unlink()
        self.places.link.mkdir()
        with self.assertRaisesRegex(SetupError, "move it away"):
            self.prepare()
