"""The check of GPUs: what it tries, that a failure does not end it, and what its report says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from unittest import mock

from gpu_steps import command, found, losses, report, running
from gpu_steps.parts import Bench, Part, parts
from gpu_steps.report import FAILED, PASSED, Report, Result
from gpu_steps.running import Ended
from setup_steps.console import SetupError
from setup_steps.places import Places

from .support import RepositoryTest, ScratchTest

PART = Part("train, single", ("mpt", "train"))
SHELL = ("/bin/sh", "-c")


class PartsTest(ScratchTest):
    def names(self, gpus: int, rehearsed: bool = False) -> list[str]:
        self.planned = list(parts(Bench(Path("mpt"), Path("target"), Path("runs"), gpus, rehearsed)))
        return [part.name for part in self.planned]

    def test_one_gpu_is_tried_without_others(self) -> None:
        names = self.names(1)
        self.assertEqual(names[:2], ["doctor", "copies, streams, events, a group of one"])
        self.assertEqual(names[3:], ["losses, single", "train, single", "bench step, single"])
        self.assertNotIn("2", [word for part in self.planned for word in part.command])

    def test_more_gpus_are_tried_in_every_mode(self) -> None:
        two, four = self.names(2), self.names(4)
        for kind in ("losses", "verify", "train"):
            for mode in ("data-parallel", "model-parallel"):
                self.assertIn(f"{kind}, {mode}", two)
            self.assertIn(f"{kind}, mesh 2x2", four)
        self.assertLessEqual({"bench step, model-parallel", "bench scaling", "bench exchange"}, set(two))

    def test_what_is_done_while_tensors_travel_is_switched_off_to_see_what_it_brings(self) -> None:
        self.assertFalse([name for name in self.names(1) if "own half" in name or "overlap" in name])
        self.names(2)
        settings = {part.name: " ".join(part.command) for part in self.planned if part.name.startswith("train, model")}
        self.assertIn("own_half=on", settings["train, model-parallel"])
        self.assertIn("own_half=off", settings["train, model-parallel, own half off"])
        for setting in ("own_half=off", "early_exchange=false", "bucket=all"):
            self.assertIn(f"--set parallel.{setting}", settings["train, model-parallel, no overlap"])

    def test_on_gpus_everything_but_the_reference_asks_for_cuda(self) -> None:
        self.names(4)
        own = ("doctor", "losses on the CPU, to compare with")
        others = [part for part in self.planned if part.command[0] == "mpt" and part.name not in own]
        self.assertTrue(all("cuda" in part.command for part in others))

    def test_a_rehearsal_is_of_the_same_runs_and_of_nothing_that_needs_a_gpu(self) -> None:
        names = self.names(4, rehearsed=True)
        self.assertEqual(set(names), {name for name in self.names(4) if not name.startswith("verify")})
        self.names(4, rehearsed=True)
        # A benchmark takes the simulator for the GPUs that it is asked for; training is rehearsed.
        asking = [part.name for part in self.planned if "cuda" in part.command]
        self.assertEqual(asking, ["bench step, mesh 2x2", "bench scaling", "bench exchange"])

    def test_what_simulated_gpus_measure_is_as_little_as_can_be(self) -> None:
        for rehearsed in (True, False):
            self.names(2, rehearsed)
            few = [part for part in self.planned if set(part.command) & {"--warmup", "--sizes"}]
            self.assertEqual(len(few), 3 if rehearsed else 0)

    def test_every_run_has_a_folder_of_its_own_and_is_compared_with_one_before_it(self) -> None:
        self.names(4)
        runs = [part.run for part in self.planned if part.run]
        self.assertEqual(len(set(runs)), len(runs))
        self.assertTrue(all(part.like in runs[: runs.index(part.run)] for part in self.planned if part.like))


class LossesTest(ScratchTest):
    def record(self, name: str, *found: float) -> Path:
        folder = self.scratch / name
        folder.mkdir()
        lines = [{"kind": "step", "loss": loss} for loss in found] + [{"kind": "epoch"}]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    def test_the_first_step_that_differs_is_named(self) -> None:
        like = self.record("like", 2.5, 2.0, 1.0)
        self.assertEqual(losses.compare(self.record("same", 2.5, 2.0 + 1e-10, 1.0), like), "")
        other, none = self.record("other", 2.5, 2.001, 0.0), self.record("none", 2.5, 2.0, float("nan"))
        self.assertIn("first at step 2: 2.001 and 2.0 are 5.0e-04", losses.compare(other, like))
        self.assertIn("first at step 3: nan", losses.compare(none, like))

    def test_missing_steps_are_told(self) -> None:
        like = self.record("like", 2.5, 2.0)
        self.assertIn("it recorded 1 steps", losses.compare(self.record("short", 2.5), like))
        self.assertIn("it recorded 0 steps", losses.compare(self.scratch / "none", like))
        self.assertIn("nothing to compare", losses.compare(like, self.scratch / "none"))


class RunningTest(ScratchTest):
    def run_shell(self, script: str, limit: float = 30.0) -> Ended:
        return running.run((*SHELL, script), {**os.environ, "WORD": "heard"}, self.scratch, limit)

    def test_code_and_output_in_the_order_they_came(self) -> None:
        ended = self.run_shell("echo one; echo two >&2; echo $WORD; pwd; exit 3")
        self.assertEqual((ended.code, ended.output), (3, f"one\ntwo\nheard\n{self.scratch}\n"))
        self.assertEqual(self.run_shell("kill -SEGV $$").how, "SIGSEGV")

    def test_what_hangs_is_ended_with_all_that_it_started(self) -> None:
        began = time.monotonic()
        with mock.patch.object(running, "GRACE_SECONDS", 0.2):
            ended = self.run_shell("trap '' TERM; sleep 60 & echo $!; wait; sleep 60", limit=0.3)
        self.assertIsNone(ended.code)
        self.assertLess(time.monotonic() - began, 20)
        state = Path(f"/proc/{ended.output.strip()}/stat")
        self.assertTrue(not state.exists() or ") Z " in state.read_text())

    def test_a_program_that_there_is_not(self) -> None:
        ended = running.run(("/no/such/program",), os.environ, self.scratch, 1.0)
        self.assertEqual((ended.code, ended.output), (127, "/no/such/program: No such file or directory"))


class JudgementTest(ScratchTest):
    BENCH = Bench(Path("mpt"), Path("target"), Path("runs"), 1, False)

    def judge(self, code: int | None, **more: object) -> str:
        return command.judged(PART._replace(**more), Ended(code, 1.0, ""), self.BENCH).verdict

    def test_only_what_ends_well_passes(self) -> None:
        self.assertEqual([self.judge(code) for code in (0, 1, 2, -11, None)], [PASSED, *[FAILED] * 4])

    def test_a_run_that_ends_well_with_other_losses_fails(self) -> None:
        self.assertEqual(self.judge(0, run="a", like="b"), FAILED)

    def test_each_part_is_run_whatever_became_of_those_before(self) -> None:
        planned = [Part(str(code), (*SHELL, f"exit {code}")) for code in (0, 1, 0)]
        console = mock.Mock()
        found_out = list(command.results(planned, self.BENCH, os.environ, self.scratch, console))
        self.assertEqual([result.verdict for result in found_out], [PASSED, FAILED, PASSED])
        console.say.assert_any_call(mock.ANY)


class ReportTest(ScratchTest):
    def report(self, *verdicts: str, planned: int = 3) -> Report:
        results = [
            Result(PART._replace(name=f"part {number}"), Ended(0, 1.5, "said\n"), verdict)
            for number, verdict in enumerate(verdicts)
        ]
        return Report({"GPU 0": "a | b"}, "", False, planned, results)

    def test_the_verdict_names_what_failed_and_tells_what_is_left(self) -> None:
        self.assertEqual(self.report(*[PASSED] * 3).verdict(), "3 of 3 parts passed in 4.5 s")
        self.assertEqual(
            self.report(FAILED, PASSED, planned=4).verdict(),
            "1 of 4 parts passed in 3.0 s; FAILED: `part 0`; it ended before the last 2",
        )

    def test_the_verdict_is_at_the_top_and_each_part_is_told_in_full(self) -> None:
        text = self.report(PASSED, FAILED, PASSED).markdown()
        self.assertTrue(text.splitlines()[2].startswith("**2 of 3 parts passed"), text)
        for line in ("| GPU 0 | a \\| b |", "| part 1 | FAILED | 0 | 1.5 s |", "### part 2", "mpt train", "said"):
            self.assertIn(line, text.splitlines())
        self.assertNotIn("rehearsal", text)
        self.assertIn(report.NOT_A_PROOF, self.report(PASSED)._replace(rehearsed=True).markdown())

    def test_long_outputs_lose_their_middle_and_colours(self) -> None:
        lines = report.shortened("\x1b[31mred\x1b[0m\n" + "".join(f"line {number}\n" for number in range(1, 1000)))
        self.assertEqual(lines.splitlines()[0], "red")
        self.assertIn("[800 lines are left out here]", lines)
        self.assertTrue(lines.endswith("line 999"))

    def test_no_output_can_end_its_block(self) -> None:
        self.assertEqual(report.fenced("a\n```\nb"), "````\na\n```\nb\n````")

    def test_an_older_report_is_replaced_at_once(self) -> None:
        path = self.scratch / "report.md"
        for verdict in (FAILED, PASSED):
            report.write(self.report(verdict), path)
        self.assertIn("1 of 3", path.read_text())
        self.assertEqual(list(self.scratch.iterdir()), [path])


class LookTest(ScratchTest):
    """The probe of drivers that are not there, or broken; a small library stands in for one."""

    def look(self, script: str) -> found.Found:
        probe = self.scratch / "probe.py"
        probe.write_text(script)
        places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        with mock.patch.object(found, "PROBE", probe), mock.patch.object(found, "PROBE_SECONDS", 2):
            return found.look(os.environ, places)

    def test_a_driver_that_crashes_or_hangs_does_not_take_the_check_with_it(self) -> None:
        self.assertIn("exit code -11", self.look("import os; os.kill(os.getpid(), 11)").lacks)
        self.assertIn("did not within 2 s", self.look("import time; time.sleep(30)").lacks)

    def test_what_it_tells(self) -> None:
        told = {"cuda": "13.0", "gpus": [{"name": "A", "memory": 2**34}], "nccl": "2.29.7", "nccl_path": "/n"}
        machine = self.look(f"print({json.dumps(json.dumps(told))})")
        places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        facts = found.facts(machine, places, {"NCCL_P2P_DISABLE": "1", "SECRET": "x"})
        self.assertEqual((facts["GPU 0"], facts["NCCL"]), ("A, 16.0 GiB", "2.29.7, /n"))
        self.assertEqual((facts["NCCL_P2P_DISABLE"], "SECRET" in facts), ("1", False))

    def test_more_gpus_than_there_are(self) -> None:
        with self.assertRaisesRegex(SetupError, "--gpus 3: this machine has 1 that CUDA can use"):
            command.demand_gpus(3, found.Found(gpus=[found.Gpu("A", 1)]))


class CallTest(RepositoryTest):
    def test_without_a_gpu_it_says_so_in_a_sentence_and_builds_nothing(self) -> None:
        result = self.call("gpu-check", CUDA_VISIBLE_DEVICES="")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, "^mpt: this machine lacks .*; scripts/gpu-check --rehearse .*\n$")
        self.assertFalse(self.calls.exists())

    def test_a_report_for_a_folder_that_there_is_not(self) -> None:
        result = self.call("gpu-check", "--rehearse", "--out", "nowhere/report.md")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--out nowhere/report.md: there is no folder", result.stderr)

    def test_a_rehearsal_reports_failures_and_goes_on(self) -> None:
        result = self.call("gpu-check", "--rehearse", "--gpus", "1")
        self.assertEqual(result.returncode, 1, result.stderr)
        # The program that only pretends leaves no record to compare.
        self.assertIn("5 of 6 parts passed in ", result.stdout)
        self.assertIn("; FAILED: `losses, single`; see gpu-check.md", result.stdout)
        text = (self.scratch / "elsewhere" / "gpu-check.md").read_text()
        self.assertIn("ran rehearse --gpus 1 --mode single", text)
        self.assertIn("there is nothing to compare its losses with", text)
