"""`scripts/parity` as it is called."""

from __future__ import annotations

from .support import RepositoryTest


class CommandTest(RepositoryTest):
    def test_it_wants_to_know_what_to_do(self) -> None:
        for arguments in ([], ["wrong"], ["check", "twice"]):
            result = self.call("parity", *arguments)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(result.stdout, "")
