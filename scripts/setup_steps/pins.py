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

# What libtorch_cuda.so and the libraries behind it are linked to besides, as PyTorch's wheel demands. The tests of the
# binding to NCCL need that one alone, and run on machines without a driver too.
NCCL = Wheel(
    "nvidia-nccl-cu13==2.29.7",
    "nvidia_nccl_cu13-2.29.7-py3-none-manylinux_2_18_x86_64.whl",
    205_976_000,
    "edd81538446786ec3b73972543e53bb43bcaf0bfc8ef76cb679fcc390ffe136d",
)
CUDA_WHEELS: tuple[Wheel, ...] = (
    Wheel(
        "nvidia-cublas==13.1.1.3",
        "nvidia_cublas-13.1.1.3-py3-none-manylinux_2_27_x86_64.whl",
        423_138_758,
        "37936a16db8fe4ac1f065c2139360608a543a09275cb1a1af612e08cfa065436",
    ),
    Wheel(
        "nvidia-cuda-nvrtc==13.0.88",
        "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        90_215_200,
        "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    ),
    Wheel(
        "nvidia-cudnn-cu13==9.20.0.48",
        "nvidia_cudnn_cu13-9.20.0.48-py3-none-manylinux_2_27_x86_64.whl",
        366_173_588,
        "0c45dd8eeb50b603f07995b1b300c62ffe6a1980482b82b3bcf94a4ca9d49304",
    ),
    Wheel(
        "nvidia-cufft==12.0.0.61",
        "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        214_085_489,
        "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    ),
    Wheel(
        "nvidia-cufile==1.15.1.6",
        "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        1_223_672,
        "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    ),
    Wheel(
        "nvidia-curand==10.4.0.35",
        "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
        59_544_258,
        "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    ),
    Wheel(
        "nvidia-cusolver==12.0.4.66",
        "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
        200_941_980,
        "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    ),
    Wheel(
        "nvidia-cusparse==12.6.3.3",
        "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        145_942_937,
        "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    ),
    Wheel(
        "nvidia-cusparselt-cu13==0.8.1",
        "nvidia_cusparselt_cu13-0.8.1-py3-none-manylinux2014_x86_64.whl",
        170_148_586,
        "786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0",
    ),
    Wheel(
        "nvidia-nvjitlink==13.5.37",
        "nvidia_nvjitlink-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        46_642_491,
        "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
    ),
    Wheel(
        "nvidia-nvshmem-cu13==3.4.5",
        "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        60_412_546,
        "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    ),
    Wheel(
        "nvidia-nvtx==13.0.85",
        "nvidia_nvtx-13.0.85-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
        148_047,
        "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
    ),
    NCCL,
)

# How pip is told to choose these very files on any Python.
WHEEL_CHOICE: tuple[str, ...] = (
    "--only-binary=:all:",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_27_x86_64",
    "--platform=manylinux_2_25_x86_64",
    "--platform=manylinux_2_18_x86_64",
    "--platform=manylinux2014_x86_64",
    "--platform=manylinux2010_x86_64",
    "--platform=manylinux1_x86_64",
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
LIBTORCH_UNPACKED = 1_150 * MB
CUDA_GROWTH = 1.43  # bytes unpacked for one packed
UNPACK_SECONDS = 12
CUDA_UNPACK_SECONDS = 30
UNPACK_MEMORY = 100 * MB
CRATE_DOWNLOAD = 120_000
CRATE_UNPACKED = 1_450_000
TARGET_SIZE = 1_000 * MB
DATA_SIZE = 31 * MB
COMPILE_MEMORY = 3_300 * MB
CRATES_CORE_SECONDS = 250
CRATES_LEAST_SECONDS = 25
BUILD_CORE_SECONDS = 330
BUILD_LEAST_SECONDS = 90
ASSUMED_RATE = 10 * MB
