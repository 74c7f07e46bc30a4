"""What Debian has of what is tried: Open MPI, MPICH, and the tools of network namespaces."""

from __future__ import annotations

import os
import shutil

from setup_steps.children import Children
from setup_steps.console import SetupError

# Program and package. Debian gives Open MPI's mpirun and MPICH's mpiexec these names beside the ones that they share.
# The versions are those of the distribution, which pins them.
NEEDED = {"mpirun.openmpi": "openmpi-bin", "mpiexec.hydra": "mpich", "ip": "iproute2", "unshare": "util-linux"}


def bring(children: Children) -> None:
    """Installs what is not there yet."""
    if os.geteuid() != 0:
        raise SetupError("network namespaces need root: run this as root, as in a container")
    missing = [package for program, package in NEEDED.items() if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise SetupError(f"this machine lacks {', '.join(missing)}, and apt-get to install them with")
    print(f"installing {', '.join(missing)}", flush=True)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if children.run(install, environment=quiet).code != 0:
        # The lists of what there is may be old, or not there at all.
        children.run(["apt-get", "update"], environment=quiet)
        installed = children.run(install, environment=quiet)
        if installed.code != 0:
            raise SetupError(f"apt-get cannot install {', '.join(missing)}: {installed.lines[-1:]}")
