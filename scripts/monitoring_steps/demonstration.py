"""Tries the demo as a person does: it must show data of every device, and end on Ctrl-C without a trace."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from . import check
from .demo import SHOWN
from .processes import Process
from .prometheus import Api, Programs
from .training import SMALL, START_SECONDS

LIMIT_SECONDS = 60


def problems(root: Path, programs: Programs, scratch: Path) -> list[str]:
    """What is wrong with it."""
    temporary = scratch / "demo"
    temporary.mkdir()
    path = f"{programs.prometheus.parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, str(root / "scripts" / "demo-monitoring"), "--mode=model-parallel", *SMALL]
    with Process("the demo", command, scratch, {**os.environ, "PATH": path, "TMPDIR": str(temporary)}) as demo:
        api = Api(demo.wait_for(r"data source +(http://\S+)", START_SECONDS).group(1))
        check.await_series(api, SHOWN, "device", ["cpu:0", "cpu:1"], LIMIT_SECONDS)
        shown = check.summary(api.query(SHOWN))
        demo.process.send_signal(signal.SIGINT)
        ended = demo.wait(LIMIT_SECONDS)
    print(f"demo: {SHOWN}: {shown}; exit code {demo.process.returncode}")
    if not ended or demo.process.returncode != 0:
        return ["the demo: " + "\n  ".join([f"exit code {demo.process.returncode} after Ctrl-C", *demo.last])]
    left = [str(each) for each in temporary.iterdir()]
    return [f"the demo leaves {', '.join(left)}"] if left else []
