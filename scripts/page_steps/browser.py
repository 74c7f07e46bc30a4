"""Chromium without a window, spoken to through two pipes in the DevTools protocol: JSON, a zero byte after each message."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from setup_steps.children import Children
from setup_steps.console import Console, SetupError

REMEDY = "Debian: apt-get install chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome")
ANSWER_SECONDS = 60
# Nothing but what is asked for: no updates, no look at what may have been changed since, no profile but a fresh one.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


def installed() -> Path | None:
    """The machine's own browser, if it has one."""
    found = (shutil.which(name) for name in NAMES)
    return next((Path(path) for path in found if path), None)


def program(console: Console, children: Children) -> Path:
    """The machine's own browser; where there is none, Debian's is installed, if we may."""
    found = installed()
    if found:
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        console.say("mpt: installing Debian's Chromium (124 MB to download, 414 MB on disk)")
        children.run(["apt-get", "update", "--quiet"])
        children.run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium"])
    found = installed()
    if found is None:
        raise SetupError(f"this machine lacks Chromium ({REMEDY})")
    return found


class Browser:
    """One page of a browser. Used as a context, the browser ends with it."""

    def __init__(self, program: Path, profile: Path) -> None:
        # The browser reads commands from its file descriptor 3 and writes answers to 4.
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        command = ["sh", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "sh", str(program), *OPTIONS]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(commands, answers),
        )
        os.close(commands)
        os.close(answers)
        self._messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(os.fdopen(self._from, "rb"),), daemon=True).start()
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        """The address of everything that the page has asked for."""
        self.complaints: list[str] = []
        """What the page's script, or the browser's policy for it, has complained of."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._to)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and gives its result. What is told meanwhile is taken note of."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._wait(lambda told: told.get("id") == self._number, method)["result"]

    def show(self, url: str, width: int, height: int, scheme: str) -> None:
        """Loads a page in a window of this size, as people see it who prefer this colour scheme: light or dark."""
        self.ask("Emulation.setScrollbarsHidden", hidden=True)  # as on a phone; nor are they in pictures
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=url)
        self._wait(lambda told: told.get("method") == "Page.loadEventFired", f"loading {url}")

    def value(self, script: str) -> Any:
        """What a script gives, run in the page; a promise is waited for."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise SetupError(f"the page's script failed: {result['exceptionDetails']}", code=1)
        return result["result"].get("value")

    def picture(self, file: Path) -> None:
        """Writes the whole page, as it is now, to a PNG file."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def _wait(self, wanted: Any, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                told = self._messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise SetupError(f"the browser has not answered in {ANSWER_SECONDS} s: {what}", code=1) from None
            if told is None:
                raise SetupError(f"the browser has ended, exit code {self.process.wait()}: {what}", code=1)
            self._note(told)
            if wanted(told):
                if "error" in told:
                    raise SetupError(f"the browser refuses {what}: {told['error']}", code=1)
                return told

    def _note(self, told: dict[str, Any]) -> None:
        parameters = told.get("params", {})
        if told.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(parameters["exceptionDetails"]))
        elif told.get("method") == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])

    def _read(self, answers: BinaryIO) -> None:
        rest = b""
        with answers:
            while chunk := answers.read1():
                *messages, rest = (rest + chunk).split(b"\0")
                for message in messages:
                    self._messages.put(json.loads(message))
        self._messages.put(None)
