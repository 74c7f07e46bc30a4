"""The command line: brings schemas and linters, then goes on in their environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

from libraries.environment import Library
from libraries.handover import become
from setup_steps.pins import MB

FORMS = Library("cluster-forms", "1", Path(__file__).with_name("forms.txt"), 45 * MB, 245 * MB, unpack_seconds=10)

USAGE = """\
Usage: scripts/check-cluster

Checks the form of cluster/: the Kubernetes manifests against the schemas of Kubernetes 1.37,
JobSet, Kubeflow's Trainer 2.3 and Prometheus's operator, the shell scripts with shellcheck,
the Dockerfile with hadolint. The first call installs these in the cache.

Environment:
  XDG_CACHE_HOME    they lie in its folder mpt (default: ~/.cache)
  PIP_*             and pip's configuration files: package index, certificates, proxy
"""


def main(arguments: Sequence[str], root: Path) -> int:
    """Parses, prepares, and hands over to the environment's Python."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if arguments:
        print(USAGE, end="", file=sys.stderr)
        return 2
    become(FORMS, root, "unittest", ["tests.cluster_forms"])
