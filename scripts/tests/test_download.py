"""The download: whole files only, going on after a break, and nothing damaged kept."""

from __future__ import annotations

import hashlib
import urllib.request

from setup_steps.console import SetupError, Stopped
from setup_steps.download import File, Refused, download, verify

from .support import ScratchTest, Server

BODY = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(BODY).hexdigest()


class DownloadTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.enter(Server().running())
        self.server.files["file"] = BODY
        self.path = self.scratch / "file"
        self.part = self.scratch / "file.part"
        self.told: list[int] = []

    def fetch(self, size: int | None = len(BODY), sha256: str = SHA256, check=lambda: None) -> None:
        file = File(self.server.url + "file", self.path, size, sha256)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        download(file, opener, self.told.append, check, pause=lambda seconds: None)

    def test_a_file_arrives_whole(self) -> None:
        self.fetch()
        self.assertEqual(self.path.read_bytes(), BODY)
        self.assertFalse(self.part.exists())
        self.assertEqual(self.told[-1], len(BODY))

    def test_an_interrupted_download_goes_on(self) -> None:
        self.part.write_bytes(BODY[:1000])
        self.fetch()
        self.assertEqual(self.path.read_bytes(), BODY)
        self.assertEqual(self.server.asked, ["bytes=1000-"])

    def test_a_whole_part_is_not_asked_for_again(self) -> None:
        self.part.write_bytes(BODY)
        self.fetch()
        self.assertEqual(self.server.asked, [])

    def test_a_part_that_is_too_long_starts_over(self) -> None:
        self.part.write_bytes(BODY + b"more")
        self.fetch()
        self.assertEqual(self.server.asked, [None])

    def test_a_file_of_unknown_size_starts_over(self) -> None:
        self.part.write_bytes(b"of another file")
        self.fetch(size=None)
        self.assertEqual(self.server.asked, [None])

    def test_broken_connections_are_taken_up_again(self) -> None:
        self.server.break_after = len(BODY) // 8 + 1
        self.fetch()
        self.assertEqual(self.path.read_bytes(), BODY)
        self.assertEqual(len(self.server.asked), 8)

    def test_connections_that_bring_nothing_are_given_up(self) -> None:
        self.server.break_after = 0
        with self.assertRaisesRegex(SetupError, "broke off 5 times.*run the same command again"):
            self.fetch()
        self.assertEqual(len(self.server.asked), 5)

    def test_a_server_without_ranges_sends_all(self) -> None:
        self.server.ranges = False
        self.part.write_bytes(BODY[:1000])
        self.fetch()
        self.assertEqual(self.path.read_bytes(), BODY)

    def test_a_busy_server_is_asked_again(self) -> None:
        self.server.statuses = [503, 429]
        self.fetch()
        self.assertEqual(self.path.read_bytes(), BODY)

    def test_a_refusal_is_final(self) -> None:
        for status in (401, 403, 404):
            self.server.statuses = [status]
            with self.assertRaisesRegex(Refused, str(status)):
                self.fetch()

    def test_a_wrong_checksum_names_both_and_keeps_nothing(self) -> None:
        wrong = "0" * 64
        with self.assertRaisesRegex(SetupError, f"sha256 {SHA256} instead of {wrong}"):
            self.fetch(sha256=wrong)
        self.assertEqual(list(self.scratch.iterdir()), [])

    def test_a_wrong_size_names_both(self) -> None:
        self.part.write_bytes(BODY)
        with self.assertRaisesRegex(SetupError, f"{len(BODY)} bytes instead of {len(BODY) + 1}"):
            verify(self.part, File("", self.path, len(BODY) + 1, SHA256))
        self.assertFalse(self.part.exists())

    def test_it_stops_when_told_and_keeps_the_part(self) -> None:
        def check() -> None:
            if self.told:
                raise Stopped

        with self.assertRaises(Stopped):
            self.fetch(check=check)
        self.assertTrue(0 < self.part.stat().st_size <= len(BODY))
        self.assertFalse(self.path.exists())
