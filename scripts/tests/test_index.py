"""What is read from pip's words."""

from __future__ import annotations

import unittest

from setup_steps import index
from setup_steps.children import Outcome
from setup_steps.pins import LIBTORCH_WHEELS


class IndexTest(unittest.TestCase):
    def test_versions(self) -> None:
        self.assertEqual(index.version_of("pip 23.2.1 from /usr/lib (python 3.11)"), (23, 2))
        self.assertEqual(index.version_of("No module named pip"), (0, 0))

    def test_the_environment_comes_before_files(self) -> None:
        lines = [":env:.cert='/of/the/environment'", "global.cert='/of/a/file'", "install.proxy='http://of.install:1'"]
        settings = index.parse_settings([*lines, "global.proxy='http://of.all:1'", "nonsense"])
        self.assertEqual(settings, {"cert": "/of/the/environment", "proxy": "http://of.install:1"})

    def test_addresses_of_the_wheels_that_were_asked_for(self) -> None:
        torch, cupti, runtime = LIBTORCH_WHEELS
        urls = [
            f"https://index.example/a/{torch.file}#sha256=0",
            f"file:///wheels/{cupti.file}",
            "https://index.example/b",
        ]
        report = {"install": [{"download_info": {"url": url}} for url in urls]}
        self.assertEqual(
            index.addresses(report, LIBTORCH_WHEELS), {torch.file: f"https://index.example/a/{torch.file}"}
        )

    def test_the_line_that_says_what_went_wrong(self) -> None:
        self.assertEqual(index.last_error(Outcome(1, ["a", "ERROR: b", "hint"])), "ERROR: b")
        self.assertEqual(index.last_error(Outcome(7, [])), "exit code 7")

    def test_no_network_is_told_from_no_such_package(self) -> None:
        refused = "Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<...>: refused')'"
        self.assertTrue(index.UNREACHED.search(refused))
        self.assertFalse(index.UNREACHED.search("ERROR: No matching distribution found for torch==2.13.0"))
