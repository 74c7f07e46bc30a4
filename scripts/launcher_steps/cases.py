"""The cases: what is started how, and what must come of it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Callable, Sequence

from .hosts import Host, Hosts
from .sockets import listening
from .trial import Trial, Wrong, same, steps

PORT = 29_471
# What a rank waits for a collective, and a rank that is cut off for a sign of life; mpt adds 12 s to the latter.
TIMEOUT_SECONDS = 5
SETTINGS = {
    "model.name": "tiny",
    "train.batch_size": "8",
    "data.source": "synthetic",
    "data.image": "[2,13,13]",
    "data.classes": "5",
    "data.test_examples": "16",
    "optimizer.momentum": "0.9",
    "train.precision": "fp32",
    "parallel.threads": "1",
}
# What a cluster leaves a job between SIGTERM and SIGKILL.
MOST_SECONDS_TO_STOP = 30
TWO = ("--mode", "model-parallel")
FOUR = ("--mesh", "2x2")


def training(trial: Trial, command: str, run: str, layout: Sequence[str], number: int = 6) -> list[str]:
    """A command line of mpt; with this many steps."""
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    arguments = [*layout, *settings, "--steps", str(number), "--run-dir", str(trial.folder / run)]
    return [str(trial.program), command, *arguments]


def in_one_process(trial: Trial, run: str, layout: Sequence[str], devices: int, number: int = 6) -> None:
    command = training(trial, "train", run, layout, number)
    trial.run(run, [*command, "--gpus", str(devices), "--device", "cpu"])


def torchrun(trial: Trial, arguments: Sequence[str], command: Sequence[str]) -> list[str]:
    # As its own script does, which holds the path of where it was installed.
    return [str(trial.python), "-m", "torch.distributed.run", *arguments, "--no-python", *command]


def mpirun(ranks: int, command: Sequence[str]) -> list[str]:
    # More ranks than the machine has cores, which they share as they like.
    return ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), *command]


def on_one_host(trial: Trial, start: Callable[[int, Sequence[str]], list[str]]) -> str:
    """Two ranks and four, each beside one process with as many devices."""
    for ranks, layout in ((2, TWO), (4, FOUR)):
        in_one_process(trial, f"threads-{ranks}", layout, ranks)
        run = f"ranks-{ranks}"
        trial.run(run, start(ranks, training(trial, "rehearse", run, layout)))
        told = same(trial.folder / run, trial.folder / f"threads-{ranks}")
        trial.nothing_is_left()
    return f"{told}, with two ranks and with four\n{trial.line(run, 'started by')}"


def torchrun_on_one_host(trial: Trial) -> str:
    """torchrun starts two and four ranks"""
    return on_one_host(
        trial, lambda ranks, command: torchrun(trial, ["--standalone", "--nproc-per-node", str(ranks)], command)
    )


def mpirun_on_one_host(trial: Trial) -> str:
    """mpirun starts two and four ranks"""
    return on_one_host(trial, mpirun)


def mpiexec_on_one_host(trial: Trial) -> str:
    """mpiexec of MPICH starts two ranks"""
    in_one_process(trial, "threads", TWO, 2)
    trial.run("ranks", ["mpiexec.hydra", "-n", "2", *training(trial, "rehearse", "ranks", TWO)])
    told = same(trial.folder / "ranks", trial.folder / "threads")
    trial.nothing_is_left()
    return f"{told}\n{trial.line('ranks', 'started by')}"


def torchrun_on_two_hosts(trial: Trial) -> str:
    """torchrun on two hosts, an agent and two ranks on each"""
    in_one_process(trial, "threads", FOUR, 4)
    with Hosts(2) as hosts:
        for host in hosts:
            arguments = ["--nnodes", "2", "--nproc-per-node", "2", "--rdzv-id", "two-hosts", "--rdzv-backend", "c10d"]
            arguments += ["--rdzv-endpoint", f"{hosts[0].address}:{PORT}", "--local-addr", host.address]
            # It would look its own name up to find out, and test hosts are in no directory.
            arguments += ["--rdzv-conf", f"is_host={int(host is hosts[0])}"]
            command = torchrun(trial, arguments, training(trial, "rehearse", "run", FOUR))
            trial.start(host.name, host.command(command))
        for host in hosts:
            trial.ends_with(host.name, 0)
        told = same(trial.folder / "run", trial.folder / "threads")
        trial.nothing_is_left()
        return f"{told}\n{trial.line(hosts[0].name, 'started by')}"


def host_that_is_cut_off(trial: Trial) -> str:
    """of two hosts that train, one is cut off"""
    with Hosts(2) as hosts:
        for number, host in enumerate(hosts):
            # The static kind of rendezvous: the other's agent asks its store for ever when it is cut off.
            arguments = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number)]
            arguments += ["--master-addr", hosts[0].address, "--master-port", str(PORT)]
            command = training(trial, "rehearse", "run", TWO, number=1_000_000)
            command += ["--set", f"parallel.timeout={TIMEOUT_SECONDS}s"]
            trial.start(host.name, host.command(torchrun(trial, arguments, command)))
        trial.wait_until("three steps", lambda: len(steps(trial.folder / "run")) >= 3)
        ports = listening(trial.left(), trial.program.name)
        if ports:
            raise Wrong(f"ranks that torchrun started listen at {ports}; its agent serves the store")
        hosts[1].cut_off()
        cut = time.monotonic()
        for host in hosts:
            trial.ends_with(host.name, 1)
        seconds = time.monotonic() - cut
        trial.nothing_is_left()
    here = trial.line(hosts[0].name, "mpt: ")
    there = trial.line(hosts[1].name, "mpt: ")
    if f"rank 1 ({hosts[1].name}" not in here or "has not been heard of" not in here:
        raise Wrong(f"{hosts[0].name} did not name the rank and its host: {here}")
    if f"{hosts[0].address}:{PORT} has not answered" not in there:
        raise Wrong(f"{hosts[1].name} did not name the store: {there}")
    return f"both ended {seconds:.0f} s after the cut, nothing was left\n{here}\n{there}"


def torchrun_that_is_stopped(trial: Trial) -> str:
    """torchrun gets SIGTERM while it trains, and the run goes on"""
    arguments, resume = ["--standalone", "--nproc-per-node", "2"], ["--resume", "auto"]
    command = [*training(trial, "rehearse", "run", TWO, number=1_000_000), *resume]
    trial.start("stopped", torchrun(trial, arguments, command))
    trial.wait_until("three steps", lambda: len(steps(trial.folder / "run")) >= 3)
    trial.running["stopped"].send_signal(signal.SIGTERM)
    sent = time.monotonic()
    code = trial.end_of("stopped", MOST_SECONDS_TO_STOP)
    seconds = time.monotonic() - sent
    trial.nothing_is_left()
    told = trial.line("stopped", "go on with: mpt train --resume ")
    done = len(steps(trial.folder / "run"))
    command = [*training(trial, "rehearse", "run", TWO, number=done + 4), *resume]
    trial.run("resumed", torchrun(trial, arguments, command))
    trial.line("resumed", f"resumed after step {done} of {done + 4}, ")
    in_one_process(trial, "threads", TWO, 2, number=done + 4)
    equal = same(trial.folder / "run", trial.folder / "threads")
    return f"it ended with exit code {code} after {seconds:.1f} s, and step {done}\n{told}\nresumed: {equal}"


def ranks_that_differ(trial: Trial) -> str:
    """torchrun starts two ranks, one with another batch size"""
    script = 'test "$RANK" = 0 || export MPT_SEED=7; exec "$@"'
    command = ["sh", "-c", script, "sh", *training(trial, "rehearse", "run", TWO)]
    trial.start("torchrun", torchrun(trial, ["--standalone", "--nproc-per-node", "2"], command))
    trial.ends_with("torchrun", 1)
    trial.nothing_is_left()
    if (trial.folder / "run").exists():
        raise Wrong("a run directory was made")
    expected = "rank 1 differs from rank 0 in seed: 7 instead of 0; start every rank with the same command"
    return f"in torchrun's own report: {trial.line('torchrun', f'traceback : mpt: {expected}')}"


def rank_that_fails(trial: Trial) -> str:
    """torchrun starts two ranks, one of which finds no data"""
    script = 'test "$RANK" = 0 || set -- "$@" --set data.source=idx --data-dir /nowhere; exec "$@"'
    command = ["sh", "-c", script, "sh", *training(trial, "rehearse", "run", TWO)]
    trial.start("torchrun", torchrun(trial, ["--standalone", "--nproc-per-node", "2"], command))
    trial.ends_with("torchrun", 1)
    trial.nothing_is_left()
    report = trial.log("torchrun").split("Root Cause", 1)[-1]
    if "rank      : 1 " not in report:
        raise Wrong("torchrun's report does not show rank 1 as the cause")
    return f"in torchrun's own report: {trial.line('torchrun', 'traceback : mpt: ')}"


def by_hand(trial: Trial, rank: int, size: int, command: Sequence[str]) -> None:
    """Starts a rank by torch's names, which nobody watches."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT}
    trial.start(f"rank-{rank}", command, {name: str(value) for name, value in names.items()})


def rank_that_is_killed(trial: Trial) -> str:
    """of two ranks that nobody watches, one is killed with SIGKILL"""
    command = training(trial, "rehearse", "run", TWO, number=1_000_000)
    for rank in (0, 1):
        by_hand(trial, rank, 2, [*command, "--set", f"parallel.timeout={TIMEOUT_SECONDS}s"])
    trial.wait_until("three steps", lambda: len(steps(trial.folder / "run")) >= 3)
    trial.running["rank-1"].kill()
    killed = time.monotonic()
    trial.ends_with("rank-0", 1)
    seconds = time.monotonic() - killed
    trial.nothing_is_left()
    return f"the other ended {seconds:.0f} s later\n{trial.line('rank-0', 'mpt: ')}"


def rank_that_does_not_come(trial: Trial) -> str:
    """of three ranks, one is never started"""
    command = training(trial, "rehearse", "run", ("--mode", "data-parallel"))
    for rank in (0, 2):
        by_hand(trial, rank, 3, [*command, "--set", f"parallel.meeting={TIMEOUT_SECONDS}s"])
    for rank in (0, 2):
        trial.ends_with(f"rank-{rank}", 1)
    trial.nothing_is_left()
    return trial.line("rank-0", "of 3 ranks rank 1 did not come")


CASES: tuple[Callable[[Trial], str], ...] = (
    torchrun_on_one_host,
    mpirun_on_one_host,
    mpiexec_on_one_host,
    torchrun_on_two_hosts,
    torchrun_that_is_stopped,
    host_that_is_cut_off,
    ranks_that_differ,
    rank_that_fails,
    rank_that_is_killed,
    rank_that_does_not_come,
)
