"""Prometheus: the machine's own or Debian's package, unpacked in the cache; a server for a while, and its HTTP API."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Mapping, NamedTuple

from setup_steps.children import Children, Outcome
from setup_steps.console import Console, SetupError
from setup_steps.places import Places, locked, make_folder

from .processes import Process

REMEDY = "Debian: apt-get install prometheus"
DEBIAN_PAGES = "/classic"
START_SECONDS = 60
LISTENS = r'Listening on"? address=(\S+)'
ANSWER_SECONDS = 30
# What the shipped configuration says, and what a look of seconds needs.
INTERVALS = re.compile(r"^(\s*(?:scrape|evaluation)_interval:) \S+$", re.MULTILINE)


class Programs(NamedTuple):
    """The server, and the tool that checks its files."""

    prometheus: Path
    promtool: Path


def installed() -> Programs | None:
    """Those on the PATH, if both are."""
    found = [shutil.which(name) for name in Programs._fields]
    return Programs(*(Path(path) for path in found if path)) if all(found) else None


def programs(places: Places, console: Console, children: Children) -> Programs:
    """Those of the machine, else those of Debian's package.

    The package is unpacked in the cache, not installed: an installed one starts a server with every boot. (Its pages
    for people only show when it is installed; its API always answers.)
    """
    there = installed()
    if there:
        return there
    home = places.cache / "prometheus-debian"
    unpacked = Programs(home / "usr" / "bin" / "prometheus", home / "usr" / "bin" / "promtool")
    with locked(places, "prometheus", console, children.check):
        if not unpacked.promtool.exists():
            console.say("mpt: unpacking Debian's Prometheus in the cache (20 MB to download, 100 MB on disk)")
            unpack(home, children)
    return unpacked


def unpack(home: Path, children: Children) -> None:
    """Downloads the package that Debian has now and moves what is in it to its place, whole."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise SetupError(f"this machine lacks prometheus and promtool ({REMEDY})")
    scratch = home.with_name(home.name + ".part")
    shutil.rmtree(scratch, ignore_errors=True)
    make_folder(scratch)
    download = ["apt-get", "download", "--quiet", "prometheus"]
    outcome = children.run(download, folder=str(scratch))
    if outcome.code != 0 and os.geteuid() == 0:
        # A machine that has never asked has no list of packages.
        children.run(["apt-get", "update", "--quiet"])
        outcome = children.run(download, folder=str(scratch))
    if outcome.code != 0:
        raise SetupError(f"this machine lacks prometheus, and apt-get download fails ({last(outcome)}): {REMEDY}")
    package = next(scratch.glob("*.deb"))
    outcome = children.run(["dpkg-deb", "--extract", str(package), str(scratch)])
    if outcome.code != 0:
        raise SetupError(f"dpkg-deb cannot unpack {package.name} ({last(outcome)})")
    package.unlink()
    shutil.rmtree(home, ignore_errors=True)
    scratch.rename(home)


def last(outcome: Outcome) -> str:
    """What a program said last."""
    return outcome.lines[-1] if outcome.lines else f"exit code {outcome.code}"


def configured(shipped: Path, folder: Path, targets: Mapping[str, str], interval: str = "1s") -> Path:
    """A copy of the shipped configuration for these targets (an address for each job), with shorter intervals."""
    shutil.copytree(shipped, folder)
    configuration = folder / "prometheus.yml"
    text, count = INTERVALS.subn(rf"\1 {interval}", configuration.read_text(encoding="utf-8"))
    assert count == 2, f"{configuration} should have two intervals"
    configuration.write_text(text, encoding="utf-8")
    groups = [{"targets": [address], "labels": {"job": job}} for job, address in targets.items()]
    # JSON is YAML.
    (folder / "targets" / "mpt.yml").write_text(json.dumps(groups), encoding="utf-8")
    return configuration


class Server(Process):
    """A Prometheus of its own: on a free port of the loopback, with a folder of its own."""

    def __init__(self, programs: Programs, configuration: Path, data: Path) -> None:
        command = [
            str(programs.prometheus),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={data}",
            "--web.listen-address=127.0.0.1:0",
        ]
        super().__init__("Prometheus", command, configuration.parent, os.environ)
        try:
            # Two of its parts say these, each when it is so far.
            address = self.wait_for(LISTENS, START_SECONDS, "ready to receive web requests").group(1)
        except BaseException:
            self.end()
            raise
        self.url = f"http://{address}"


    def pages(self) -> str:
        """Where the pages for people are. Debian's has them in a place of their own, to which others do not lead."""
        try:
            with urllib.request.urlopen(f"{self.url}{DEBIAN_PAGES}/graph", timeout=ANSWER_SECONDS):
                return self.url + DEBIAN_PAGES
        except urllib.error.HTTPError:
            return self.url


class RefusedError(Exception):
    """Prometheus cannot answer a query: what it says of it."""


class Api:
    """Prometheus's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of a query now."""
        return series(self.get("query", query=expr))

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query over time."""
        return series(self.get("query_range", query=expr, start=str(start), end=str(end), step=str(step)))

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values that a label has on the series of a selector."""
        return self.get(f"label/{label}/values", **{"match[]": selector})

    def rules(self) -> list[dict[str, Any]]:
        """Every rule, recording or alerting."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RefusedError(reason(error.read())) from error


def reason(body: bytes) -> str:
    """What an answer that is no success says."""
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError):
        return body.decode(errors="replace")


def series(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The series of an answer; a scalar is one without labels."""
    return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]
