"""The comparison with peers: its figures, goals, tables and calls, with programs that only pretend."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from unittest import mock

from peers import allocator, check, comparison, environment
from peers.catalogue import PROGRAMS, Size, mpt_command, named, peer_command
from peers.figures import Figure, figure, left_out, ratio
from peers.goals import GOALS, Measured, verdicts
from peers.record import Record
from peers.running import Failed, Tools, from_line, from_metrics, measure, run
from peers.table import goal_lines, table
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from .support import SCRIPTS, ScratchTest

SIZE = Size(batch=100, warmup=1, steps=3)

# Stands for every program: prints what a peer prints, or records what mpt records, at a rate from the environment.
PRETENDER = """#!%s
import json, os, sys, time
flags = dict(flag.split("=", 1) for flag in sys.argv[1:] if "=" in flag)
if os.environ.get("SLEEPS"):
    open(os.environ["SLEEPS"], "w").write(str(os.getpid()))
    time.sleep(60)
if os.environ.get("FAILS", "nothing") in " ".join(sys.argv):
    sys.exit("it cannot do that")
seconds = 1.0 if sys.argv[1] == "train" else 1.25
if sys.argv[1] == "train":
    os.mkdir(flags["--run-dir"])
    with open(flags["--run-dir"] + "/metrics.jsonl", "w") as file:
        for step in range(int(flags["--steps"])):
            file.write(json.dumps({"kind": "step", "seconds": seconds, "loss": 2.3}) + "\\n")
        file.write(json.dumps({"kind": "epoch"}) + "\\n")
else:
    print("a library's chatter")
    loss = 2.4 if "jax" in sys.argv[1] else 2.3
    print(json.dumps({"step_seconds": [seconds], "examples_per_second": int(flags["--batch-size"]) / seconds,
        "peak_resident_bytes": 2 * 10**9, "loss_first": 2.3, "loss_last": 2.2, "losses": [loss]}))
""" % sys.executable


def result(program: str, number: int, rate: float, precision: str = "bf16", peak: int = 10**9) -> dict:
    return {
        "program": program,
        "precision": precision,
        "round": number,
        "examples_per_second": rate,
        "peak_resident_bytes": peak,
    }


class FiguresTest(unittest.TestCase):
    def test_fewer_than_six_values_give_no_interval(self) -> None:
        self.assertEqual(figure([3, 1, 2, 9, 5]), Figure(3, None, None))

    def test_the_interval_leaves_out_as_much_as_it_may(self) -> None:
        # The table of the sign test at 95 %: 6 to 8 values nothing, 9 to 11 one at either end, 12 two, 20 five.
        self.assertEqual([left_out(count) for count in (5, 6, 8, 9, 11, 12, 20)], [None, 0, 0, 1, 1, 2, 5])
        self.assertEqual(figure([9, 8, 7, 6, 5, 4, 3, 2, 100]), Figure(6, 3, 9))

    def test_the_interval_holds_the_median_as_often_as_it_says(self) -> None:
        import random

        source = random.Random(1)
        holds = 0
        for _ in range(2000):
            found = figure([source.expovariate(1.0) for _ in range(9)])
            holds += found.low <= 0.6931 <= found.high  # the median of that distribution is ln 2
        self.assertGreater(holds / 2000, 0.945)

    def test_ratios_are_taken_within_a_round(self) -> None:
        above = {1: 20.0, 2: 10.0, 3: 40.0, 9: 1.0}
        below = {1: 10.0, 2: 5.0, 3: 20.0}
        self.assertEqual(ratio(above, below), Figure(2.0, None, None))
        self.assertIsNone(ratio(above, {4: 1.0}))


class GoalsTest(unittest.TestCase):
    def test_met_missed_and_doubtful(self) -> None:
        results = []
        for number in range(1, 10):
            results.append(result("mpt-model-parallel", number, 110.0 + number))
            results.append(result("pytorch-hand-split-tuned", number, 105.0))
            results.append(result("pytorch-hand-split", number, 50.0))
            results.append(result("pytorch-single", number, 100.0))
        found = {verdict.goal: verdict for verdict in verdicts(Measured(results)) if "memory" not in verdict.goal}
        self.assertEqual(
            [(verdict.goal, verdict.met, verdict.doubtful) for verdict in found.values()],
            [
                ("bf16: mpt-model-parallel >= 1.00 x the best tuned program (pytorch-hand-split-tuned)", True, False),
                ("bf16: mpt-model-parallel >= 1.10 x pytorch-hand-split-tuned", False, True),
                ("bf16: mpt-model-parallel >= 1.22 x pytorch-hand-split", True, False),
                ("bf16: mpt-model-parallel >= 1.40 x pytorch-single", False, False),
            ],
        )

    def test_the_best_tuned_program_has_the_highest_median(self) -> None:
        results = [result("pytorch-ddp-tuned", number, rate) for number, rate in enumerate((10, 10, 99))]
        results += [result("jax-model-tuned", number, rate) for number, rate in enumerate((20, 20, 1))]
        results += [result("pytorch-single", number, 500) for number in range(3)]
        self.assertEqual(Measured(results).best_tuned("bf16"), "jax-model-tuned")
        self.assertIsNone(Measured(results).best_tuned("fp32"))

    def test_memory_is_compared_between_programs_of_one_job(self) -> None:
        results = [
            result("mpt-data-parallel", 1, 1.0, peak=5 * 10**8),
            result("mpt-single", 1, 1.0, peak=2 * 10**9),
            result("pytorch-ddp", 1, 1.0),
            result("pytorch-single", 1, 1.0),
        ]
        found = [verdict for verdict in verdicts(Measured(results)) if "memory" in verdict.goal]
        self.assertEqual(
            [(verdict.goal, verdict.found, verdict.met) for verdict in found],
            [
                ("bf16: peak memory of mpt-data-parallel below that of pytorch-ddp", "0.50 GB against 1.00 GB", True),
                ("bf16: peak memory of mpt-single below that of pytorch-single", "2.00 GB against 1.00 GB", False),
            ],
        )

    def test_goals_name_programs_that_there_are(self) -> None:
        names = {program.name for program in PROGRAMS} | {"the best tuned program"}
        for goal in GOALS:
            self.assertLessEqual({goal.mpt, goal.peer}, names)

    def test_what_was_not_measured_has_no_verdict(self) -> None:
        self.assertEqual(verdicts(Measured([])), [])
        self.assertEqual(goal_lines([]), "")


class TableTest(unittest.TestCase):
    def test_a_line_a_program_fastest_first(self) -> None:
        results = [result("mpt-model-parallel", number, 120.0) for number in range(6)]
        results += [result("pytorch-single", number, 100.0 + number) for number in range(6)]
        results += [{**result("jax-data", 1, 0.0), "failed": "no memory"}]
        results[-2]["libraries_resident_bytes"] = 5 * 10**8
        shown = table(Measured(results), ["jax-data, bf16, failed: no memory"])
        lines = shown.splitlines()
        self.assertRegex(lines[1], r"^mpt model-parallel +bf16 +6 +120\.0 \[120\.0, 120\.0\] +1\.00 GB +1\.00 ")
        self.assertRegex(lines[2], r"^PyTorch, one process, as installed +bf16 +6 +102\.5 \[100\.0, 105\.0\] +1\.00 GB ")
        self.assertRegex(lines[2], r" 1\.17 \[1\.14, 1\.20\]$")
        self.assertIn("95 % intervals", shown)
        self.assertEqual(lines[-1], "jax-data, bf16, failed: no memory")

    def test_few_rounds_are_said_to_be_few(self) -> None:
        self.assertIn("needs 6 rounds", table(Measured([result("mpt-single", 1, 1.0)]), []))
        self.assertEqual(table(Measured([]), []), "no program gave a figure")


class CallsTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.pretender = self.scratch / "pretender"
        self.pretender.write_text(PRETENDER)
        self.pretender.chmod(0o755)
        self.tools = Tools(self.pretender, self.pretender, {"FAILS": "ddp"})
        self.said = io.StringIO()

    def test_names_and_beginnings_choose_programs(self) -> None:
        self.assertEqual(
            [program.name for program in named(["mpt", "jax-data"])],
            ["mpt-model-parallel", "mpt-data-parallel", "mpt-single", "jax-data", "jax-data-tuned"],
        )
        with self.assertRaisesRegex(ValueError, "no program is called jx"):
            named(["jx"])

    def test_both_are_given_the_same_work(self) -> None:
        (program,) = named(["jax-data-tuned"])
        command = peer_command(program, Path("python"), "bf16", SIZE)
        self.assertEqual(command[2:4], ["--variant", "data"])
        self.assertLessEqual({"--precision=bf16", "--batch-size=100", "--warmup=1", "--steps=3"}, set(command))
        command = mpt_command(named(["mpt-single"])[0], Path("mpt"), "bf16", SIZE, Path("run"), ["seed=1"])
        self.assertLessEqual(
            {"--gpus=1", "--mode=single", "--precision=bf16", "--batch-size=100", "--steps=4", "--set=seed=1"},
            set(command),
        )

    def test_a_peer_tells_its_result_in_its_last_line(self) -> None:
        self.assertEqual(from_line('words\n{"examples_per_second": 5}\n')["examples_per_second"], 5.0)
        for output in ("", "words", "{}", "[1]", '{"examples_per_second": "fast"}'):
            with self.assertRaisesRegex(Failed, "no line of JSON"):
                from_line(output)

    def test_steps_of_mpt_count_after_the_warm_up(self) -> None:
        seconds = (9.0, 0.5, 1.0, 2.0)
        lines = [json.dumps({"kind": "step", "seconds": each, "loss": 2.0 + each}) for each in seconds]
        lines.append(json.dumps({"kind": "epoch"}))
        found = from_metrics("\n".join(lines), SIZE, 7)
        self.assertEqual(found["examples_per_second"], 100.0)
        self.assertEqual((found["loss_first"], found["loss_last"], found["peak_resident_bytes"]), (11.0, 4.0, 7))
        with self.assertRaisesRegex(Failed, "recorded 3 steps instead of 4"):
            from_metrics("\n".join(lines[1:]), SIZE, 7)

    def test_a_program_that_fails_says_why(self) -> None:
        self.assertEqual(measure(named(["pytorch-single"])[0], "fp32", SIZE, self.tools)["examples_per_second"], 80.0)
        with self.assertRaisesRegex(Failed, "exit code 1: it cannot do that"):
            measure(named(["pytorch-ddp-tuned"])[0], "fp32", SIZE, self.tools)
        with self.assertRaisesRegex(Failed, "No such file"):
            run([str(self.scratch / "nothing")], {})

    def test_the_memory_of_a_program_is_its_peak(self) -> None:
        def peak(script: str) -> int:
            return run([sys.executable, "-c", script], os.environ).peak

        more = peak("b'1' * 200_000_000") - peak("")
        self.assertGreater(more, 150_000_000)

    def test_rounds_are_recorded_and_gone_on_with(self) -> None:
        file = self.scratch / "record.json"
        contestants = [(program, "bf16") for program in named(["mpt", "pytorch-ddp"])]
        for rounds in (2, 3):
            record = Record(file, {"cores": 2}, SIZE)
            for _ in range(rounds):
                comparison.play(contestants, SIZE, self.tools, record, Console(self.said))
        kept = json.loads(file.read_text())["results"]
        self.assertEqual([each["round"] for each in kept if each["program"] == "mpt-single"], [1, 2, 3, 4, 5])
        failed = [each for each in kept if "failed" in each]
        self.assertEqual([each["program"] for each in failed], ["pytorch-ddp-tuned"], "a failure is not tried again")
        first = [[each["program"] for each in kept if each["round"] == number][0] for number in (1, 2, 3)]
        self.assertEqual(len(set(first)), 3, "every round begins with another program")
        with self.assertRaisesRegex(SetupError, "with other sizes"):
            Record(file, {"cores": 2}, Size(1, 1, 1))
        with self.assertRaisesRegex(SetupError, "with cores 2"):
            Record(file, {"cores": 3}, SIZE)
        file.write_text("[]")
        with self.assertRaisesRegex(SetupError, "is no record"):
            Record(file, {"cores": 2}, SIZE)

    def test_a_peer_with_other_losses_is_found(self) -> None:
        with mock.patch("sys.stdout", io.StringIO()) as shown:
            code = check.check(named(["pytorch", "jax-data"]), self.pretender, Console(self.said))
        self.assertEqual(code, 1)
        self.assertRegex(shown.getvalue(), r"JAX by example, as installed .* DIFFERS\nnot equal")

    def test_an_interruption_ends_the_program_and_prints_what_there_is(self) -> None:
        beat = self.scratch / "beat"
        driver = subprocess.Popen(
            [sys.executable, SCRIPTS / "compare-peers", "--programs=mpt-single", "--quick", f"--mpt={self.pretender}"],
            env={**os.environ, "SLEEPS": str(beat)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(200):
            if beat.exists() and beat.read_text():
                break
            time.sleep(0.05)
        driver.send_signal(signal.SIGINT)
        output, errors = driver.communicate(timeout=30)
        self.assertEqual(driver.returncode, 130, errors)
        self.assertEqual(output, "no program gave a figure\n")
        self.assertIn("mpt: interrupted", errors)
        self.assertFalse(Path("/proc", beat.read_text()).exists(), "the program lives on")

    def test_wrong_use_is_a_sentence_and_code_2(self) -> None:
        for arguments in (["--programs=nothing"], ["--rounds=0"], ["--warmup=-1"], ["--tuning=x"], ["--mpt=/nothing", "--programs=mpt"]):
            called = subprocess.run(
                [sys.executable, SCRIPTS / "compare-peers", *arguments], capture_output=True, text=True, timeout=30
            )
            self.assertEqual(called.returncode, 2, called.stderr)
            self.assertNotIn("Traceback", called.stderr)


class InstallationTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        self.places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        self.said = io.StringIO()

    def test_a_given_python_is_used_as_it_is(self) -> None:
        with mock.patch.dict(os.environ, {environment.VARIABLE: sys.executable}):
            self.assertEqual(str(environment.prepare(self.places, Console(self.said), Children())), sys.executable)
        with mock.patch.dict(os.environ, {environment.VARIABLE: "/nothing"}):
            with self.assertRaisesRegex(SetupError, "is no program"):
                environment.prepare(self.places, Console(self.said), Children())

    def test_without_tcmalloc_the_tuned_programs_are_left_out_with_a_sentence(self) -> None:
        with mock.patch.object(allocator, "fetch"), mock.patch("ctypes.util.find_library", return_value=None):
            self.assertIsNone(allocator.prepare(self.places, Console(self.said), Children()))
        self.assertIn("tcmalloc is not to be had", self.said.getvalue())

    def test_a_library_that_does_not_load_does_not_count(self) -> None:
        self.assertFalse(allocator.loads(str(self.scratch / "libtcmalloc_minimal.so.4")))


if __name__ == "__main__":
    unittest.main()
