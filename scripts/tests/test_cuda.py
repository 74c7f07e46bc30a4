"""NVIDIA's libraries beside libtorch: added to what is there, whole or not counted."""

from __future__ import annotations

import io
import urllib.request
from unittest import mock

from setup_steps import cuda, libtorch, wheels
from setup_steps.children import Children
from setup_steps.console import Console, SetupError, Stopped
from setup_steps.places import Places

from .support import ScratchTest, Server, wheel

MATHS = {"nvidia/cu13/lib/libcublas.so.13": b"products " * 1000, "nvidia/cu13/include/cublas.h": b"header"}
NCCL = {"nvidia/nccl/lib/libnccl.so.2": b"exchange"}


class CudaTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.enter(Server().running())
        self.enter(mock.patch.object(wheels, "Index", lambda places, children: self))
        self.places = Places(self.scratch / "repository", self.scratch / "cache", self.scratch / "target")
        self.home = self.places.libtorch
        self.runtime = self.home / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
        self.runtime.parent.mkdir(parents=True)
        self.runtime.write_bytes(b"was there before")
        self.wanted = []
        for name, contents in (("maths", MATHS), ("nccl", NCCL)):
            made, self.server.files[f"{name}-1-none-any.whl"] = wheel(name, contents)
            self.wanted.append(made)
        self.console, self.children = Console(io.StringIO()), Children()

    # What wheels.py asks of the package index.
    def locate(self, asked) -> dict[str, str]:
        return {found.file: self.server.url + found.file for found in asked}

    def opener(self) -> urllib.request.OpenerDirector:
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def prepare(self) -> None:
        cuda.prepare(self.places, self.wanted, self.console, self.children)

    def test_they_are_added_and_nothing_is_taken_away(self) -> None:
        self.assertFalse(cuda.ready(self.places, self.wanted))
        self.prepare()
        self.assertTrue(cuda.ready(self.places, self.wanted))
        for name, content in {**MATHS, **NCCL}.items():
            self.assertEqual((self.home / name).read_bytes(), content)
        self.assertEqual(self.runtime.read_bytes(), b"was there before")
        self.assertFalse(self.places.wheels.exists())
        self.assertEqual([path.name for path in self.home.parent.iterdir() if "part" in path.name], [])

    def test_nccl_gets_the_name_that_mpt_asks_for_and_its_wheel_stays_as_it_is(self) -> None:
        self.prepare()
        link = self.home / "link" / "cuda" / "libnccl.so"
        self.assertEqual(link.resolve(), self.home / "nvidia" / "nccl" / "lib" / "libnccl.so.2")
        self.assertEqual([path.name for path in link.resolve().parent.iterdir()], ["libnccl.so.2"])
        link.unlink()
        self.assertFalse(cuda.ready(self.places, self.wanted))
        self.prepare()
        self.assertTrue(cuda.ready(self.places, self.wanted))
        self.assertEqual(len(self.server.asked), 2)

    def test_what_is_whole_is_not_fetched_again(self) -> None:
        self.prepare()
        (self.home / "nvidia/cu13/include/cublas.h").write_bytes(b"half")
        self.assertEqual(cuda.lacking(self.places, self.wanted), self.wanted[:1])
        self.prepare()
        self.assertEqual((self.home / "nvidia/cu13/include/cublas.h").read_bytes(), b"header")
        self.assertEqual(len(self.server.asked), 3)

    def test_an_interrupted_download_goes_on(self) -> None:
        self.places.wheels.mkdir(parents=True)
        begun = self.server.files[self.wanted[0].file][:100]
        (self.places.wheels / f"{self.wanted[0].file}.part").write_bytes(begun)
        self.assertEqual(wheels.bytes_left(self.places, self.wanted), wheels.total(self.wanted) - 100)
        self.prepare()
        self.assertEqual(self.server.asked, ["bytes=100-", None])

    def test_an_interrupted_unpacking_never_counts(self) -> None:
        extract = wheels.extract

        def stop_after(*arguments) -> None:
            extract(*arguments)
            raise Stopped

        with mock.patch.object(wheels, "extract", stop_after), self.assertRaises(Stopped):
            self.prepare()
        self.assertEqual(cuda.lacking(self.places, self.wanted), self.wanted)
        self.prepare()
        self.assertTrue(cuda.ready(self.places, self.wanted))
        self.assertEqual(len(self.server.asked), 2)

    def test_a_wheels_list_comes_last(self) -> None:
        moved: list[str] = []
        replace = type(self.home).replace

        def note(path, place):
            moved.append(path.name)
            return replace(path, place)

        with mock.patch.object(type(self.home), "replace", note):
            self.prepare()
        self.assertEqual([place for place, name in enumerate(moved) if name == "RECORD"], [2, 4])

    def test_another_file_than_the_pinned_one_is_refused(self) -> None:
        body = self.server.files[self.wanted[1].file]
        self.server.files[self.wanted[1].file] = body[:-1] + b"!"
        with self.assertRaisesRegex(SetupError, "not the file that was expected"):
            self.prepare()
        self.assertFalse((self.home / "nvidia" / "nccl").exists())

    def test_a_wheel_without_nccls_library_is_told(self) -> None:
        other, self.server.files["other-1-none-any.whl"] = wheel("other", {"nvidia/elsewhere/libnccl.so.2": b""})
        self.wanted = [other]
        with self.assertRaisesRegex(SetupError, "link/cuda/libnccl.so leads nowhere"):
            self.prepare()

    def test_they_go_where_the_repositorys_libtorch_is(self) -> None:
        elsewhere = self.scratch / "another cache" / self.home.name
        (elsewhere / "link").mkdir(parents=True)
        (elsewhere / libtorch.STAMP).write_text("")
        self.places.root.mkdir()
        self.places.link.symlink_to(elsewhere / "link")
        self.prepare()
        self.assertTrue((elsewhere / "nvidia" / "nccl" / "lib" / "libnccl.so.2").exists())
        self.assertFalse((self.home / "nvidia" / "nccl").exists())
