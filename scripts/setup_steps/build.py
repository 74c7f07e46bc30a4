"""The release build. What does not need libtorch is compiled while libtorch is on its way."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Iterator

from .children import Children, Outcome
from .console import Console, SetupError
from .places import Places

PART = "build"

# cargo's bar, "Building [===>    ] 34/181: clap, ...", and the lines that only say what is being done.
BAR = re.compile(r"^\s*Building \[.*?\] (\d+)/(\d+)(?:: (.*))?$")
CHATTER = re.compile(
    r"^\s*(Building|Compiling|Downloading|Downloaded|Updating|Locking|Blocking|Finished|Fresh|Adding)\b"
)
UNREACHED = re.compile(
    r"spurious network error|Could not resolve host|failed to download|download of .* failed|Couldn't connect|"
    r"\[(5|6|7|28|35)\] ",
)
SHOWN_LINES = 40

# What changes the program, or the simulator beside it; tests and scripts do not.
SOURCES = (
    "src",
    "build.rs",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    ".libtorch",
    "simulator/src",
    "simulator/build.rs",
    "simulator/Cargo.toml",
)


def ready(places: Places) -> bool:
    """Whether the program is newer than all it is made of. cargo knows better, but takes ten times as long."""
    try:
        built = places.program.stat().st_mtime
    except OSError:
        return False
    return all(changed <= built for changed in times(places.root))


def times(root: Path) -> Iterator[float]:
    """When each source was changed. A folder's own time tells of files that were added or removed."""
    for name in SOURCES:
        path = root / name
        if path.is_symlink() or path.exists():
            yield path.lstat().st_mtime
        if path.is_dir() and not path.is_symlink():
            for folder, folders, files in os.walk(path):
                for entry in folders + files:
                    yield os.lstat(os.path.join(folder, entry)).st_mtime


def ahead(places: Places, console: Console, children: Children) -> None:
    """Compiles everything but torch-sys and what is built on it.

    `--keep-going` does just that once torch-sys's build script has failed for want of headers, and cargo reuses all of
    it afterwards. LIBTORCH names no folder here, and the script runs again when the variable changes: should it find
    another libtorch's headers in the system's folders, they are not kept.
    """
    nowhere = places.target / "libtorch-is-on-its-way"
    outcome = cargo(places, console, children, ["--keep-going"], {"LIBTORCH": str(nowhere)})
    if outcome.code != 0 and "failed to run custom build command for `torch-sys" not in outcome.text:
        fail(outcome)


def build(places: Places, console: Console, children: Children, moved: bool) -> None:
    """The build itself.

    The program holds the way to libtorch's folder, and cargo does not see when the repository's link has `moved`: then
    the program, and nothing else, is forgotten first.
    """
    began = time.time()
    if moved:
        children.run(
            ["cargo", "clean", "--release", "--package=mpt", f"--target-dir={places.target}"], folder=str(places.root)
        )
    outcome = cargo(places, console, children, [], {})
    if outcome.code != 0:
        fail(outcome)
    # Where a change needs no linking the program keeps its time, and every later call would ask cargo again. What was
    # changed during the build stays newer.
    if all(changed <= began for changed in times(places.root)):
        os.utime(places.program)


def cargo(places: Places, console: Console, children: Children, more: list[str], extra: dict[str, str]) -> Outcome:
    """Runs `cargo build` and shows its bar as a count.

    A LIBTORCH of the caller's would come before the one in .cargo/config.toml, so such variables are left out.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIBTORCH")}
    environment.update(
        CARGO_TERM_COLOR="never",
        CARGO_TERM_PROGRESS_WHEN="always",
        CARGO_TERM_PROGRESS_WIDTH="100",
        CARGO_TERM_QUIET="false",
        CARGO_TERM_VERBOSE="false",
        **extra,
    )

    said: list[str] = []

    def tell(line: str) -> None:
        if not CHATTER.match(line):
            said.append(line)
        console.status(PART, describe(line) or console.parts.get(PART, "starting"))

    command = ["cargo", "build", "--release", "--locked", f"--target-dir={places.target}", *more]
    outcome = children.run(command, folder=str(places.root), environment=environment, on_line=tell)
    console.status(PART, "")
    return Outcome(outcome.code, said)


def describe(line: str) -> str:
    """What a line of cargo's says about how far it is; empty if nothing."""
    bar = BAR.match(line)
    if bar:
        return f"{bar.group(1)} of {bar.group(2)} crates"
    words = line.split()
    if words[:1] in (["Downloading"], ["Downloaded"], ["Updating"]):
        return "downloading crates"
    return "waiting for another cargo" if words[:1] == ["Blocking"] else ""


def fail(outcome: Outcome) -> None:
    """Ends the set-up with the end of what cargo said."""
    text = "\n".join(outcome.lines[-SHOWN_LINES:])
    if UNREACHED.search(text):
        raise SetupError(f"no network: cargo could not download crates\n{text}")
    raise SetupError(f"the build failed; the end of cargo's output:\n{text}", code=1)
