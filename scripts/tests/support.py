"""What several tests share: a web server on this machine, and a repository whose tools only pretend."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Iterator

from setup_steps.pins import Wheel

SCRIPTS = Path(__file__).resolve().parent.parent

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C, which is what some
# of them are about.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Server:
    """Serves `files` by path, and can be told to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_after: int | None = None  # bytes of a body, until the connection is cut
        self.statuses: list[int] = []  # answers to the next requests, before any file is sent
        self.asked: list[str | None] = []  # the Range header of each request
        self.url = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                web.asked.append(wanted)
                body = web.files.get(self.path.lstrip("/"))
                if web.statuses or body is None:
                    self.send_error(web.statuses.pop(0) if web.statuses else 404)
                    return
                begin = int(wanted[6:-1]) if wanted and web.ranges else 0
                self.send_response(206 if wanted and web.ranges else 200)
                if wanted and web.ranges:
                    self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - begin))
                self.end_headers()
                end = len(body) if web.break_after is None else begin + web.break_after
                self.wfile.write(body[begin:end])

        return Handler


def wheel(name: str, contents: dict[str, bytes]) -> tuple[Wheel, bytes]:
    """A wheel in little, version 1, and its bytes."""
    list_of_files = f"{name}-1.dist-info/RECORD"
    record = "".join(f"{path},sha256=x,{len(content)}\n" for path, content in contents.items())
    record += f"../../bin/tool,sha256=x,9\n{list_of_files},,\n"
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for path, content in [*contents.items(), (list_of_files, record.encode())]:
            archive.writestr(path, content)
    body = memory.getvalue()
    return Wheel(f"{name}==1", f"{name}-1-none-any.whl", len(body), hashlib.sha256(body).hexdigest()), body


class ScratchTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self) -> None:
        self.scratch = Path(self.enter(tempfile.TemporaryDirectory())).resolve()

    def enter(self, context):  # unittest has it from Python 3.11 on
        value = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return value


class RepositoryTest(ScratchTest):
    """A small repository with these scripts, a libtorch that counts as whole, and tools that pretend.

    `cargo` writes each call into the file `calls` and puts a program in place that tells what it was called with,
    and the simulator's library beside it.
    """

    CARGO = """#!/bin/sh
echo "$*" >> "$CALLS"
if [ -n "$CARGO_SAYS" ]; then echo "$CARGO_SAYS" >&2; exit 101; fi
if [ -n "$CARGO_SLEEPS" ]; then sleep "$CARGO_SLEEPS" & echo $! > "$CALLS.sleeper"; wait; fi
if [ -n "$CARGO_LINKS_NOTHING" ]; then exit; fi
mkdir -p target/release
printf '#!/bin/sh\\n# /libtorch-\\necho "ran $* in $PWD"; exit ${EXITS:-0}\\n' > target/release/mpt
chmod +x target/release/mpt
echo simulated > target/release/libmpt_simulator.so
"""

    def setUp(self) -> None:
        super().setUp()
        self.root = self.scratch / "repository"
        self.tools = self.scratch / "tools"
        self.calls = self.scratch / "calls"
        shutil.copytree(SCRIPTS, self.root / "scripts", ignore=shutil.ignore_patterns("tests", "__pycache__"))
        (self.root / "src").mkdir()
        (self.root / "src" / "main.rs").write_text("fn main() {}\n")
        (self.root / "Cargo.toml").write_text('[package]\nrust-version = "1.95"\n')
        (self.root / "Cargo.lock").write_text("")
        link = self.scratch / "cache" / "mpt" / "libtorch-2.13.0" / "link"
        link.mkdir(parents=True)
        (link.parent / ".complete").write_text("")
        (self.root / ".libtorch").symlink_to(link)
        self.tool("cargo", self.CARGO)
        self.tool("rustc", "#!/bin/sh\necho rustc 1.95.0\n")
        self.tool("c++", "#!/bin/sh\n")
        self.tool("cc", "#!/bin/sh\n")
        self.environment = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "HOME": str(self.scratch / "home"),
            "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "CALLS": str(self.calls),
            "MPT_FLAVOUR": "cpu",
        }

    def tool(self, name: str, text: str) -> None:
        path = self.tools / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def only_tools(self, *names: str) -> None:
        """Leaves nothing on the PATH but these, be they real or pretending."""
        place = self.scratch / "few"
        place.mkdir()
        for name in names:
            source = self.tools / name if (self.tools / name).exists() else shutil.which(name)
            (place / name).symlink_to(Path(str(source)).resolve())
        self.environment["PATH"] = str(place)

    def call(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Calls a script from a folder elsewhere."""
        elsewhere = self.scratch / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            cwd=elsewhere,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
