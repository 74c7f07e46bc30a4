"""Which libtorch a machine gets: CUDA's libraries, two gigabytes of them, only where there is an NVIDIA driver."""

from __future__ import annotations

import os
from pathlib import Path

from .console import SetupError

VARIABLE = "MPT_FLAVOUR"
CPU, CUDA = "cpu", "cuda"

# The driver's kernel module has the first; under WSL and in some containers there is only the library.
DRIVER_FILE = Path("/proc/driver/nvidia/version")
DRIVER_LIBRARY = "libcuda.so.1"


def wants_cuda() -> bool:
    """Whether CUDA's libraries are wanted: what the variable says, else whether there is a driver for them."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen not in ("", CPU, CUDA):
        raise SetupError(f"{VARIABLE} is {chosen}: it can be {CPU} or {CUDA}; unset, it is {CUDA} if there is a driver")
    return chosen == CUDA or (not chosen and has_driver())


def has_driver() -> bool:
    """Whether an NVIDIA driver is installed: it has left its version, or the loader finds its library."""
    if DRIVER_FILE.exists():
        return True
    import ctypes  # Takes ten times as long as the rest of this, so only where it is needed.

    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return False
    return True
