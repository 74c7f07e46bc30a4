"""What scripts/try-launchers looks at: processes that are left, ports that are listened on, runs that are the same."""

from __future__ import annotations

import json
import sys
import tempfile
import unittest
from pathlib import Path

from launcher_steps.sockets import listening
from launcher_steps.trial import Trial, Wrong, same

LISTENER = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(600)"


class TrialTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.trial = Trial(Path("mpt"), Path(sys.executable), self.folder / "trial")

    def test_what_a_program_leaves_behind_in_another_session_is_found_and_ended(self) -> None:
        with self.trial:
            self.trial.run("parent", ["sh", "-c", "setsid sleep 600 & exit 0"])
            self.assertEqual(len(self.trial.left()), 1)
        self.trial.nothing_is_left()

    def test_the_port_of_a_program_is_found(self) -> None:
        with self.trial:
            self.trial.start("listener", [sys.executable, "-c", LISTENER])
            self.trial.wait_until("a port", lambda: self.trial.log("listener").endswith("\n"))
            port = int(self.trial.log("listener"))
            program = Path(sys.executable).resolve().name
            self.assertEqual(listening(self.trial.left(), program), [port])
            self.assertEqual(listening(self.trial.left(), "another"), [])

    def test_a_program_that_ends_otherwise_than_expected_is_told(self) -> None:
        with self.trial, self.assertRaisesRegex(Wrong, "false ended with exit code 1, not 0"):
            self.trial.run("false", ["false"])

    def test_runs_that_differ_in_a_loss_or_a_byte_are_told_apart(self) -> None:
        runs = [self.run_of(name, 0.5, b"weights") for name in ("one", "other")]
        self.assertIn("1 losses", same(*runs))
        with self.assertRaisesRegex(Wrong, "the losses are"):
            same(self.run_of("third", 0.25, b"weights"), runs[0])
        with self.assertRaisesRegex(Wrong, "model.safetensors is not the same"):
            same(self.run_of("fourth", 0.5, b"Weights"), runs[0])

    def run_of(self, name: str, loss: float, weights: bytes) -> Path:
        checkpoint = self.folder / name / "checkpoints" / "step-00000001"
        checkpoint.mkdir(parents=True)
        line = json.dumps({"kind": "step", "loss": loss, "accuracy": 0.0})
        (self.folder / name / "metrics.jsonl").write_text(f"{line}\n")
        for file in ("model.safetensors", "optimizer.safetensors"):
            (checkpoint / file).write_bytes(weights)
        return self.folder / name


if __name__ == "__main__":
    unittest.main()
