"""The Python package index, reached through pip alone: its index, certificates, proxies and credentials are pip's."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import ssl
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Callable, NamedTuple, Sequence

from .children import Children, Outcome
from .console import SetupError
from .pins import LEAST_PIP, PIP, WHEEL_CHOICE, Wheel
from .places import Places, make_folder

# What pip says when it never reached an index, as against one that lacks the package.
UNREACHED = re.compile(
    r"connection broken|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|Could not fetch URL|"
    r"Temporary failure in name resolution|Max retries exceeded|Network is unreachable|Could not connect",
    re.IGNORECASE,
)
SETTINGS = "pip's index-url and proxy (`python3 -m pip config list` shows them)"
QUICK = ("--timeout=8", "--retries=1")

# Long enough for three index pages and the tails of three files. An index that serves neither metadata nor ranges makes
# pip download the files whole only to look at them: then it is ended here, and downloads them in the plain way.
LOCATE_SECONDS = 60


class Pip(NamedTuple):
    """A pip to call, and whether it can tell a file's address without downloading the file."""

    command: tuple[str, ...]
    locates: bool


class Index:
    """The package index as pip sees it."""

    def __init__(self, places: Places, children: Children) -> None:
        self.places = places
        self.children = children
        self.pip = self._choose()

    def locate(self, wheels: Sequence[Wheel]) -> dict[str, str]:
        """The address of each file that pip would download; none where pip or the index cannot tell.

        This is also the check that there is a network at all: no reachable index ends the set-up here. Without hashes,
        because pip would download every file to check them; the files are checked when they are here.
        """
        if not self.pip.locates:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            arguments = [
                "--dry-run",
                "--ignore-installed",
                "--no-deps",
                "--use-feature=fast-deps",
                f"--report={report}",
            ]
            outcome = self._run(
                "install", *arguments, *WHEEL_CHOICE, f"--target={folder}", *QUICK, *names(wheels), limit=LOCATE_SECONDS
            )
            self._demand_wheels(outcome)
            if outcome.code != 0 or not report.exists():
                return {}
            return addresses(json.loads(report.read_text(encoding="utf-8")), wheels)

    def download(self, wheels: Sequence[Wheel], folder: Path) -> None:
        """Downloads whole files in pip's own way, which no interruption survives."""
        with tempfile.TemporaryDirectory() as scratch:
            pins = requirements(Path(scratch), wheels)
            where = ["--no-deps", "--no-cache-dir", f"--dest={folder}", *WHEEL_CHOICE]
            outcome = self._run("download", "--progress-bar=off", "--require-hashes", *where, f"--requirement={pins}")
        self._demand_wheels(outcome)
        if outcome.code != 0:
            raise SetupError(f"pip could not download {', '.join(names(wheels))} ({last_error(outcome)})")

    def install(self, python: Path, pins: Path, temporary: Path, tell: Callable[[str], None]) -> None:
        """Installs all that a requirements file pins, and nothing else, for another Python. `tell` hears pip's lines.

        What pip downloads lies in the folder `temporary` for a while: the system's own may be small.
        """
        where = ["--no-deps", "--no-cache-dir", "--only-binary=:all:", f"--requirement={pins}"]
        outcome = self._run(
            "install",
            "--progress-bar=off",
            "--require-hashes",
            *where,
            options=[f"--python={python}"],
            environment={"TMPDIR": str(temporary)},
            on_line=tell,
        )
        self._demand_wheels(outcome)
        if outcome.code != 0:
            raise SetupError(f"pip could not install {pins.name} ({last_error(outcome)})")

    def opener(self) -> urllib.request.OpenerDirector | None:
        """Opens addresses with pip's certificates and proxy; none if pip is told something that only pip can do."""
        settings = parse_settings(self._run("config", "list").lines)
        if "trusted-host" in settings or "client-cert" in settings:
            return None
        authorities = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if authorities and os.path.isdir(authorities):
            context = ssl.create_default_context(capath=authorities)
        else:
            context = ssl.create_default_context(cafile=authorities)
        proxy = settings.get("proxy")
        proxies = urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
        return urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))

    def _choose(self) -> Pip:
        """The machine's own pip if it is new enough, else a pinned one in the cache."""
        own = (sys.executable, "-m", "pip")
        self.pip = Pip(own, locates=False)
        if version_of(self._run("--version").text) >= LEAST_PIP:
            return Pip(own, locates=True)
        home = self.places.cache / PIP.requirement.replace("==", "-")
        if (home / "pip" / "__main__.py").exists() or self._install_pip(home):
            return Pip((sys.executable, str(home / "pip")), locates=True)
        return self.pip

    def _install_pip(self, home: Path) -> bool:
        """Installs the pinned pip in a folder that appears only when it is whole."""
        make_folder(home.parent)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".pip-") as scratch:
            pins = requirements(Path(scratch), [PIP])
            target = Path(scratch) / "pip"
            where = ["--no-deps", f"--target={target}", "--only-binary=:all:"]
            outcome = self._run("install", "--require-hashes", *where, *QUICK, f"--requirement={pins}")
            self._demand_network(outcome)
            if outcome.code != 0:
                return False
            shutil.rmtree(home, ignore_errors=True)
            target.rename(home)
        return True

    def _run(
        self,
        command: str,
        *arguments: str,
        options: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        limit: float | None = None,
    ) -> Outcome:
        """Calls pip, with `options` before the command. Settings for installing into an environment are lifted: where
        something is installed is said here."""
        lifted = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
        quiet = [] if command.startswith("-") else ["--no-input", "--disable-pip-version-check", "--no-color"]
        return self.children.run(
            [*self.pip.command, *options, command, *quiet, *arguments],
            environment={**os.environ, **lifted, **(environment or {})},
            on_line=on_line,
            limit=limit,
        )

    @staticmethod
    def _demand_network(outcome: Outcome) -> None:
        """Ends the set-up if pip failed because it reached no index."""
        if outcome.code != 0 and UNREACHED.search(outcome.text):
            raise SetupError(f"no network: pip reaches no package index; check the connection, and {SETTINGS}")

    def _demand_wheels(self, outcome: Outcome) -> None:
        """Ends the set-up also if the index lacks what was asked for."""
        self._demand_network(outcome)
        if outcome.code != 0 and "No matching distribution found" in outcome.text:
            raise SetupError(f"pip's package index lacks a file ({last_error(outcome)}); check {SETTINGS}")


def names(wheels: Sequence[Wheel]) -> list[str]:
    return [wheel.requirement for wheel in wheels]


def requirements(folder: Path, wheels: Sequence[Wheel]) -> Path:
    """A requirements file that pins versions and checksums."""
    path = folder / "requirements.txt"
    path.write_text(
        "".join(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n" for wheel in wheels), encoding="ascii"
    )
    return path


def addresses(report: dict, wheels: Sequence[Wheel]) -> dict[str, str]:
    """From pip's installation report: the address of each wheel that a plain request could fetch, by file name."""
    urls = [item["download_info"]["url"].partition("#")[0] for item in report["install"]]
    found = {url.rpartition("/")[2]: url for url in urls if url.startswith(("https://", "http://"))}
    return {wheel.file: found[wheel.file] for wheel in wheels if wheel.file in found}


def parse_settings(lines: Sequence[str]) -> dict[str, str]:
    """`pip config list` by option name. The environment comes before the section [install], that before [global]."""
    settings: dict[str, tuple[int, str]] = {}
    for line in lines:
        match = re.match(r"(:env:|install|global)\.([\w-]+)=(.*)$", line)
        if match:
            rank = ("global", "install", ":env:").index(match.group(1))
            value = str(ast.literal_eval(match.group(3)))
            settings[match.group(2)] = max(settings.get(match.group(2), (-1, "")), (rank, value))
    return {name: value for name, (_, value) in settings.items()}


def version_of(text: str) -> tuple[int, int]:
    """`pip 23.2.1 from ...` is (23, 2)."""
    match = re.search(r"pip (\d+)\.(\d+)", text)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def last_error(outcome: Outcome) -> str:
    """The line in which pip says what went wrong."""
    errors = [line for line in outcome.lines if line.startswith("ERROR:")]
    return (errors or outcome.lines or [f"exit code {outcome.code}"])[-1]
