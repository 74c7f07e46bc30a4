"""The comparison of loaders of image files: its calls, figures and table, with programs that only pretend."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import sys
import unittest
from pathlib import Path
from unittest import mock

from image_steps import command, contestants
from image_steps.contestants import BATCH, Contestant, result
from image_steps.told import table
from peers.running import Failed

from .support import ScratchTest

# Stands for mpt, and for the Python that runs the peer and makes the files.
PRETENDER = f"""#!{sys.executable}
import json, os, sys
row = {{"images": 8, "seconds": 1.0, "processor_seconds": 2.0, "cores": len(os.sched_getaffinity(0))}}
if "bench" in sys.argv:
    print(json.dumps({{"rows": [{{"images": 1}}, row]}}))
elif "photographs" in sys.argv[1]:
    print(json.dumps({{"files": 18, "mean_bytes": 1e5}}))
else:
    row["seconds"] = 1.6 if "--decoder=pillow" in sys.argv else 1.25
    if "--workers=1" in sys.argv:
        sys.exit("no worker can be had")
    print("a library's chatter")
    print(json.dumps(row))
"""


class ResultTest(unittest.TestCase):
    def test_of_mpt_the_row_with_all_of_the_work_counts(self) -> None:
        rows = [{"images": 4, "seconds": 9.0}, {"images": 4, "seconds": 2.0, "processor_seconds": 1.0}]
        found = result(Contestant("mpt", "mpt", (), 1), json.dumps({"rows": rows}), 4)
        expected = {"images": 4, "seconds": 2.0, "processor_seconds": 1.0, "images_per_second": 2.0}
        self.assertEqual(found, expected)

    def test_another_number_of_images_or_no_result_is_a_failure(self) -> None:
        peer = Contestant("pillow", "torchvision", (), 1)
        line = json.dumps({"images": 4, "seconds": 2.0, "processor_seconds": 1.0})
        with self.assertRaisesRegex(Failed, "it read 4 images in place of 8"):
            result(peer, line, 8)
        for output in ("", "done", "{}"):
            with self.assertRaisesRegex(Failed, "no JSON with a result"):
                result(peer, output, 4)

    def test_both_are_given_the_same_work(self) -> None:
        everyone = contestants.contestants(2)
        calls = {each.name: contestants.command(each, Path("mpt"), Path("python"), Path("dir")) for each in everyone}
        self.assertIn("--set=data.readers=1", calls["mpt"])
        self.assertIn("--set=data.readers=2", calls["mpt-all"])
        self.assertIn("--workers=2", calls["tensors-all"])
        self.assertIn(f"--batch-size={BATCH}", calls["pillow"])
        self.assertNotIn("mpt-all", [each.name for each in contestants.contestants(1)])


class TableTest(unittest.TestCase):
    def test_ratios_are_by_the_clock_and_the_goal_is_told(self) -> None:
        everyone = contestants.contestants(1)
        results = []
        for number in range(1, 4):
            for name, seconds in (("mpt", 1.0), ("pillow", 2.0), ("tensors", 1.4)):
                results.append(
                    {"name": name, "round": number, "images": 100 * number, "seconds": seconds, "processor_seconds": 1.0}
                )
        said = table(results, everyone)
        self.assertRegex(said, r"torchvision, as installed \(Pillow\) +1 +100 +200 +2.00")
        self.assertIn("met     one core: mpt >= 1.5 x torchvision, as installed (Pillow): 2.00 x", said)
        self.assertIn("MISSED  one core: mpt >= 1.5 x torchvision, decode_jpeg and tensors: 1.40 x", said)
        self.assertEqual(table([], everyone), "no program gave a figure")


class CommandTest(ScratchTest):
    def test_everyone_runs_in_each_round_and_who_fails_is_named(self) -> None:
        pretender = self.scratch / "pretender"
        pretender.write_text(PRETENDER)
        pretender.chmod(0o755)
        record = self.scratch / "record.json"
        self.enter(mock.patch.object(command, "prepare", lambda *_: pretender))
        told = {"torch": "1", "torchvision": "2", "pillow": "3"}
        self.enter(mock.patch.object(command, "versions", lambda *_: told))
        said = self.enter(contextlib.redirect_stdout(io.StringIO()))
        self.enter(contextlib.redirect_stderr(io.StringIO()))
        arguments = [f"--mpt={pretender}", "--rounds=2", "--images=8", f"--json={record}"]
        self.assertEqual(command.main(arguments, self.scratch), 1)
        kept = json.loads(record.read_text())
        count = [sum(found["name"] == name for found in kept["results"]) for name in ("mpt", "pillow", "tensors")]
        self.assertEqual((count, sorted(kept["failures"])), ([2, 2, 2], ["pillow-worker", "tensors-worker"]))
        self.assertIn("a worker failed and is left out from there on: exit code 1: no worker can be had", said.getvalue())
        self.assertRegex(said.getvalue(), r"torchvision, as installed \(Pillow\) +1 .* 1.60\n")

    def test_a_record_without_a_folder_is_refused_before_anything_is_done(self) -> None:
        self.enter(mock.patch.object(command, "prepare", mock.Mock(side_effect=AssertionError("too late"))))
        said = self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.assertEqual(command.main([f"--json={self.scratch}/nowhere/record.json"], self.scratch), 2)
        self.assertIn(f"mpt: --json: there is no folder {self.scratch}/nowhere", said.getvalue())

    def test_what_the_system_refuses_is_a_sentence(self) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        self.enter(mock.patch.object(command, "prepare", mock.Mock(side_effect=full)))
        said = self.enter(contextlib.redirect_stderr(io.StringIO()))
        self.assertEqual(command.main([], self.scratch), 2)
        self.assertIn("mpt: the disk is full: make room for ", said.getvalue())

    def test_files_alone_are_made_in_a_new_folder(self) -> None:
        pretender = self.scratch / "pretender"
        pretender.write_text(PRETENDER)
        pretender.chmod(0o755)
        self.enter(mock.patch.object(command, "prepare", lambda *_: pretender))
        said = self.enter(contextlib.redirect_stderr(io.StringIO()))
        made = self.scratch / "made"
        self.assertEqual(command.main([f"--make={made}", "--images=16"], self.scratch), 0)
        self.assertIn(f"mpt: 18 files in {made}", said.getvalue())
        made.mkdir()
        self.assertNotEqual(command.main([f"--make={made}"], self.scratch), 0)
        self.assertIn(f"--make: {made} is there already; name a new folder", said.getvalue())


if __name__ == "__main__":
    unittest.main()
