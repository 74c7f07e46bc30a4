"""The command line: brings PyTorch, then goes on in its environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

from libraries.environment import PYTORCH, SAFETENSORS
from libraries.handover import become

USAGE = f"""\
Usage: scripts/parity write
       scripts/parity check
       scripts/parity exchange

PyTorch {PYTORCH.version} trains the shipped models on the same random numbers as mpt.
`write` puts losses, norms, samples and projections into tests/mpt/expected, which
tests/mpt/parity.rs holds mpt to; `check` computes them again and compares them with
what is committed. `exchange` has an nn.Sequential load what `mpt export` writes, mpt begin
with what PyTorch saves, and each time compares their logits. The first call installs PyTorch in the cache and says what it takes.

Environment:
  XDG_CACHE_HOME    PyTorch lies in its folder mpt (default: ~/.cache)
  PIP_*             and pip's configuration files: package index, certificates, proxy
"""


def main(arguments: Sequence[str], root: Path) -> int:
    """Parses, prepares, and hands over to the environment's Python."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if list(arguments) == ["exchange"]:
        become(SAFETENSORS, root, "parity_steps.exchange", [])
    if list(arguments) not in (["write"], ["check"]):
        print(USAGE, end="", file=sys.stderr)
        return 2
    become(PYTORCH, root, "parity_steps.expectations", arguments)
