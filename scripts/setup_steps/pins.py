"""What set-up brings: pinned versions, sizes and checksums; and what it costs, as measured."""

from __future__ import annotations

from typing import NamedTuple

MB = 1_000_000


class Wheel(NamedTuple):
    """One file of the Python package index. The checksum makes any index as good as any other."""

    requirement: str
    file: str
    size: int
    sha256: str


LIBTORCH_VERSION = "2.13.0"

# PyTorch's wheel, and the two runtime libraries that libtorch_cpu.so is linked to. Only their C++ libraries and headers
# are used, so the wheel for Python 3.11 serves whatever Python runs this script.
LIBTORCH_WHEELS: tuple[Wheel, ...] = (
    Wheel(
        f"torch=={LIBTORCH_VERSION}",
        "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        526_574_961,
        "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
    ),
    Wheel(
        "nvidia-cuda-cupti==13.0.85",
        "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        10_715_597,
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    ),
    Wheel(
        "nvidia-cuda-runtime==13.0.96",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        2_243_632,
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    ),
)

# How pip is told to choose these very files on any Python.
WHEEL_CHOICE: tuple[str, ...] = (
    "--only-binary=:all:",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_25_x86_64",
    "--platform=manylinux2014_x86_64",
)

# The wheels are built for this C library and newer ones (manylinux_2_28).
LEAST_GLIBC = (2, 28)

# From this version on a dry run of pip tells a file's address without downloading it.
LEAST_PIP = (23, 3)
PIP = Wheel(
    "pip==25.3",
    "pip-25.3-py3-none-any.whl",
    1_778_622,
    "9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd",
)

# Fashion-MNIST: the sha256 of each file's unpacked contents, because every source compresses them in its own way.
FASHION_MNIST: dict[str, str] = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = "usr/share/datasets/fashion-mnist"
FASHION_MNIST_MIRRORS: tuple[str, ...] = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)

# Costs, as measured. Bytes on disk are those of the unpacked wheels, of cargo's registry, and of the target folder
# after a release build; the memory is what torch-sys's two C++ files take at once. Seconds are processor time on a
# server core of 2024; with many cores the longest chain of crates is the limit.
LIBTORCH_DOWNLOAD = sum(wheel.size for wheel in LIBTORCH_WHEELS)
LIBTORCH_UNPACKED = 1_150 * MB
UNPACK_SECONDS = 12
UNPACK_MEMORY = 100 * MB
CRATE_DOWNLOAD = 120_000
CRATE_UNPACKED = 1_450_000
TARGET_SIZE = 1_000 * MB
DATA_SIZE = 31 * MB
COMPILE_MEMORY = 3_300 * MB
CRATES_CORE_SECONDS = 165
CRATES_LEAST_SECONDS = 25
BUILD_CORE_SECONDS = 220
BUILD_LEAST_SECONDS = 90
ASSUMED_RATE = 10 * MB
