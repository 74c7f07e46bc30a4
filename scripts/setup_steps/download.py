"""A download that goes on where an interrupted one stopped."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable, NamedTuple

from .console import SetupError

CHUNK = 1 << 18
STALL_SECONDS = 30
TRIES = 5

# Answers that the same request may not get again: the server is busy or has stumbled.
PASSING = {408, 425, 429, 500, 502, 503, 504}
BROKEN = (http.client.HTTPException, ConnectionError, TimeoutError, socket.timeout, ssl.SSLError)


class Refused(Exception):
    """The server does not give this file to a plain request; another way may get it."""


class Broken(SetupError):
    """The network failed again and again."""

    def __init__(self, file: str, tries: int, why: str) -> None:
        super().__init__(
            f"the network broke off {tries} times while fetching {file} ({why}): "
            "run the same command again, it goes on where this one stopped"
        )
        self.why = why


class File(NamedTuple):
    """What to download: where from, where to, and, where they are known, its size and checksum."""

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None


def download(
    file: File,
    opener: urllib.request.OpenerDirector,
    tell: Callable[[int], None],
    check: Callable[[], None],
    pause: Callable[[float], None] = time.sleep,
    tries: int = TRIES,
) -> None:
    """Brings a file to its path, which appears only when it is whole and right; until then it is PATH.part.

    What came before a broken connection is kept, and the next request asks for the rest. Only tries that bring nothing
    are counted. A file of unknown size starts over in a new run: nothing tells whether its part is of the same file.
    """
    part = file.path.with_name(file.path.name + ".part")
    if file.size is None:
        part.unlink(missing_ok=True)
    failures = 0
    while True:
        before = size_of(part)
        try:
            if file.size is None or before != file.size:
                receive(file, part, opener, tell, check)
            break
        except (OSError, http.client.HTTPException) as error:
            if not passing(error):
                raise
            failures = failures + 1 if size_of(part) <= before else 1
            if failures >= tries:
                raise Broken(file.path.name, tries, reason(error)) from error
            check()
            pause(min(2.0**failures, 10.0))
    verify(part, file)
    part.rename(file.path)


def receive(
    file: File,
    part: Path,
    opener: urllib.request.OpenerDirector,
    tell: Callable[[int], None],
    check: Callable[[], None],
) -> None:
    """One request: appends what the server sends, or starts over if it does not send the part that was asked for."""
    have = size_of(part)
    if file.size is not None and have > file.size:
        part.unlink()
        have = 0
    request = urllib.request.Request(file.url, headers={"User-Agent": "mpt-setup", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with opener.open(request, timeout=STALL_SECONDS) as answer:
        goes_on = answer.status == 206 and begins_at(answer.headers.get("Content-Range", "")) == have
        if answer.status == 206 and not goes_on:
            raise Refused(f"a range other than the one asked for: {answer.headers.get('Content-Range')}")
        done = have if goes_on else 0
        promised = answer.headers.get("Content-Length")
        end = done + int(promised) if promised else None
        with open(part, "ab" if goes_on else "wb") as out:
            while True:
                check()
                chunk = answer.read(CHUNK)
                if not chunk:
                    break
                out.write(chunk)
                done += len(chunk)
                tell(done)
    if end is not None and done < end:
        raise http.client.IncompleteRead(b"", end - done)


def passing(error: Exception) -> bool:
    """Whether trying again may help. A refusal becomes `Refused`; trouble on this side, as a full disk, is final."""
    if isinstance(error, urllib.error.HTTPError):
        if error.code in PASSING:
            return True
        raise Refused(f"HTTP status {error.code}") from error
    if isinstance(error, urllib.error.URLError):
        if "CERTIFICATE" in str(error.reason):
            raise Refused(str(error.reason)) from error
        return True
    return isinstance(error, BROKEN)


def reason(error: Exception) -> str:
    """The words of a network error without the wrapping."""
    return str(getattr(error, "reason", "") or error)


def verify(part: Path, file: File) -> None:
    """Compares size and checksum; a wrong file is deleted, so that the next run fetches it anew."""
    size = size_of(part)
    if file.size is not None and size != file.size:
        part.unlink(missing_ok=True)
        raise SetupError(f"{file.path.name} came with {size} bytes instead of {file.size}; it was deleted, run again")
    if file.sha256 is None:
        return
    found = sha256_of(part)
    if found != file.sha256:
        part.unlink()
        raise SetupError(
            f"{file.path.name} is not the file that was expected (sha256 {found} instead of {file.sha256}); "
            "it was deleted: run again, and if that repeats, the index or a proxy hands out another file"
        )


def begins_at(content_range: str) -> int | None:
    """The first byte of an answer in part: `bytes 100-199/526574961` begins at 100."""
    match = re.match(r"bytes (\d+)-", content_range)
    return int(match.group(1)) if match else None


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
