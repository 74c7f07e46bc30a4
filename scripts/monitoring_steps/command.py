"""The command line of `scripts/monitoring`: writes the dashboard, or checks all of it on the real Prometheus."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Sequence

from libraries.environment import Library, prepare
from setup_steps import sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places
from setup_steps.pins import MB

from . import check, dashboard, demonstration, exposition, panels, prometheus, training
from .dashboard import dashboard_file, shipped
from .processes import ended, interruptible
from .prometheus import Api, Programs, RefusedError, Server

USAGE = """\
Usage: scripts/monitoring write
       scripts/monitoring check

`write` makes Grafana's dashboard, cluster/monitoring/grafana/dashboards/mpt.json, of what
scripts/monitoring_steps/panels.py says. `check` has Prometheus's own tools check configuration
and rules, trains on CPU devices, model-parallel and data-parallel at once, lets Prometheus
scrape both, and asks it every query of the dashboard and the rules: each must return data.

`check` takes the machine's prometheus and promtool, or unpacks Debian's in the cache, and
installs the reference parser prometheus-client there.
"""
PARSER = Library(
    "prometheus-client", "0.26.0", Path(__file__).with_name("prometheus_client.txt"), MB // 10, MB, unpack_seconds=5
)
RUNS = {"mpt-model-parallel": "model-parallel", "mpt-data-parallel": "data-parallel"}
SETTLE_SECONDS = 120


def main(arguments: Sequence[str], root: Path) -> int:
    """Turns every foreseen trouble into a sentence and an exit code."""
    if list(arguments) in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if list(arguments) == ["write"]:
        dashboard_file(root).write_text(dashboard.text(panels.ROWS), encoding="utf-8")
        return 0
    if list(arguments) != ["check"]:
        print(USAGE, end="", file=sys.stderr)
        return 2
    places, console, children = Places.from_environment(root), Console(), Children()
    with interruptible():
        try:
            return check_all(places, console, children)
        except KeyboardInterrupt as interruption:
            children.stop()
            return ended(console, "interrupted", 128 + interruption.args[0])
        except SetupError as error:
            return ended(console, str(error), error.code)
        except RefusedError as error:
            return ended(console, f"Prometheus: {error}", 1)
        except OSError as error:
            return ended(console, *sequence.explain(error, places))


def check_all(places: Places, console: Console, children: Children) -> int:
    """All of it; the last line counts."""
    programs = prometheus.programs(places, console, children)
    python = prepare(PARSER, places, console, children)
    sequence.set_up(places, False, console, children)
    problems = files(shipped(places.root) / "prometheus", programs)
    with tempfile.TemporaryDirectory(prefix="mpt-monitoring-") as scratch:
        problems += trained(places, programs, python, Path(scratch))
        problems += demonstration.problems(places.root, programs, Path(scratch))
    print("\n".join(f"PROBLEM: {problem}" for problem in problems) or "no problem")
    return 1 if problems else 0


def files(folder: Path, programs: Programs) -> list[str]:
    """What promtool says against the files."""
    found = []
    for arguments in (("check", "config", "prometheus.yml"), ("test", "rules", "tests.yml")):
        outcome = subprocess.run([programs.promtool, *arguments], cwd=folder, capture_output=True, text=True)
        print(f"promtool {' '.join(arguments)}: exit code {outcome.returncode}")
        if outcome.returncode != 0:
            found.append(f"promtool {' '.join(arguments)}:\n{outcome.stdout}{outcome.stderr}")
    return found


def trained(places: Places, programs: Programs, python: Path, scratch: Path) -> list[str]:
    """What is wrong with the endpoints, the dashboard and the rules while trainings run."""
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(training.small(job, mode, places.program, scratch / job)) for job, mode in RUNS.items()
        ]
        since = time.time()
        addresses = {run.name: run.address for run in runs}
        configuration = prometheus.configured(shipped(places.root) / "prometheus", scratch / "configuration", addresses)
        server = stack.enter_context(Server(programs, configuration, scratch / "data"))
        api = Api(server.url)
        check.settle(api, list(RUNS), SETTLE_SECONDS)
        found = check.findings(json.loads(dashboard_file(places.root).read_text()), api, list(RUNS), since)
        problems = [f"{each.what}: {each.problem}" for each in found if each.problem]
        for run in runs:
            served = exposition.scrape(run.address)
            wrong = exposition.problems(served, programs.promtool, python, places.root / "scripts")
            print(f"{run.name}: {len(served.text.splitlines())} lines of text, {len(wrong)} problems")
            problems += [f"{run.name}: {problem}" for problem in wrong]
    print(check.table(found))
    print(f"{len(found)} queries, {len([each for each in found if each.problem])} with a problem")
    return problems
