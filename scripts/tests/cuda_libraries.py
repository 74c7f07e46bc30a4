"""NVIDIA's libraries as they are: those that libtorch_cuda.so is linked to are in the pinned wheels, where its rpath
looks.

The loader itself is asked, which needs no GPU. `scripts/test --all` runs this, on set-up's libtorch if it is complete,
else on PyTorch's environment, which has the same wheels in the same places.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from libraries.environment import PYTORCH, packages_of, prepare
from setup_steps import cuda, wheels
from setup_steps.children import Children
from setup_steps.console import Console
from setup_steps.pins import CUDA_WHEELS, LIBTORCH_WHEELS
from setup_steps.places import Places

from .support import SCRIPTS

# The first is loaded when CUDA is asked for, the others when it is asked for more.
LIBRARIES = [
    f"lib{name}.so" for name in ("torch_cuda", "torch_cuda_linalg", "torch_nvshmem", "c10_cuda", "caffe2_nvrtc")
]
SYSTEM = re.compile(r"(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|util|gcc_s|stdc\+\+))\.so")
DRIVER = "libcuda.so.1"
NVIDIA = [wheel for wheel in (*LIBTORCH_WHEELS, *CUDA_WHEELS) if wheel.requirement.startswith("nvidia")]

# Loads libtorch_cuda.so and then NCCL as mpt does, by another name, and tells which NCCLs there are.
LOAD = """
import ctypes, sys
ctypes.CDLL(sys.argv[1])
ctypes.CDLL(sys.argv[2])
print(*sorted({line.split()[-1] for line in open("/proc/self/maps") if "libnccl" in line}), sep="\\n")
"""


def folder() -> Path:
    """A folder with PyTorch's wheel and all of NVIDIA's."""
    places = Places.from_environment(SCRIPTS.parent)
    if not cuda.lacking(places, CUDA_WHEELS):
        return cuda.home(places)
    prepare(PYTORCH, places, Console(), Children())
    return packages_of(PYTORCH.home(places))


class CudaLibrariesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = folder().resolve()
        # The loader's own path would come before some of the libraries' paths.
        cls.environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}

    def test_the_pinned_wheels_are_whole(self) -> None:
        self.assertEqual(wheels.lacking(self.folder, NVIDIA), [])

    def test_every_library_is_found_where_the_rpath_leads(self) -> None:
        lists = [self.folder / wheels.record_of(wheel) for wheel in NVIDIA]
        pinned = {self.folder / name for path in lists for name, _ in wheels.recorded(path)}
        for library in LIBRARIES:
            linked = self.linked(self.folder / "torch" / "lib" / library)
            self.assertTrue(any(found and found in pinned for found in linked.values()), library)
            for name, found in linked.items():
                if SYSTEM.match(name) or (name == DRIVER and found is None):
                    continue
                self.assertIsNotNone(found, f"{library}: {name} is not found")
                self.assertTrue(found in pinned or found.parent == self.folder / "torch" / "lib", f"{library}: {found}")

    def linked(self, library: Path) -> dict[str, Path | None]:
        """What a library is linked to, itself and through others, and where the loader finds it."""
        told = subprocess.run(["ldd", library], env=self.environment, capture_output=True, text=True, check=True).stdout
        found = re.findall(r"^\s*(\S+)(?: => (not found|\S+))?", told, re.MULTILINE)
        return {
            os.path.basename(name): None if where == "not found" else Path(where or name).resolve()
            for name, where in found
        }

    def test_there_is_one_nccl_under_both_names(self) -> None:
        nccl = self.folder / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
        with tempfile.TemporaryDirectory() as scratch:
            link = Path(scratch) / "libnccl.so"
            link.symlink_to(nccl)
            command = [sys.executable, "-c", LOAD, self.folder / "torch" / "lib" / "libtorch_cuda.so", link]
            told = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        self.assertEqual(told.stdout, f"{nccl}\n", told.stderr)
