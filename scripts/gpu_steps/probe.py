"""Asks the driver and NCCL what they are, and prints it as JSON.

In a process of its own, because a broken driver can end it. The arguments are the files that NCCL may be; the first
that is there counts.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys


def driver() -> dict:
    """The driver's CUDA version and its GPUs, or what is lacking."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"lacks": "an NVIDIA driver (its library libcuda.so.1 was not found)"}
    code = cuda.cuInit(0)
    if code != 0:
        return {"lacks": f"a GPU that CUDA can use (the driver says {error_name(cuda, code)})"}
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGetCount(ctypes.byref(count))
    if count.value == 0:
        return {"lacks": "a GPU that CUDA can use (the driver offers none)"}
    return {
        "cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
        "gpus": [gpu(cuda, number) for number in range(count.value)],
    }


def error_name(cuda: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(name))
    return name.value.decode() if name.value else f"error {code}"


def gpu(cuda: ctypes.CDLL, number: int) -> dict:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return {"name": name.value.decode(errors="replace"), "memory": memory.value}


def nccl(files: list[str]) -> dict:
    """NCCL's version, and the file that was loaded; nothing where there is none."""
    path = next((file for file in files if os.path.exists(file)), "libnccl.so")
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return {}
    number = ctypes.c_int()
    library.ncclGetVersion(ctypes.byref(number))
    major, rest = divmod(number.value, 10_000)
    return {"nccl": f"{major}.{rest // 100}.{rest % 100}", "nccl_path": os.path.realpath(path)}


if __name__ == "__main__":
    print(json.dumps({**driver(), **nccl(sys.argv[1:])}))
