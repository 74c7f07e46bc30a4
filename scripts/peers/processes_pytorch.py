"""How the processes of a PyTorch program meet and how they end: with one line for all of them."""

import argparse
import os
import sys

import alexnet_pytorch
import measure
import torch
from torch import distributed
from two_processes import PROCESSES


def join(rank: int) -> None:
    """Meets the others. Each process computes with its share of the cores."""
    torch.set_num_threads(max(1, alexnet_pytorch.CORES // PROCESSES))
    distributed.init_process_group("gloo", init_method=os.environ["MEETING"], rank=rank, world_size=PROCESSES)


def finish(arguments: argparse.Namespace, seconds: list[float], losses: list[float]) -> None:
    """The first rank reports: its own steps (all end together), the mean loss, the sum of all memory."""
    memory = torch.tensor(measure.memory())
    distributed.all_reduce(memory)
    mean = torch.tensor(losses, dtype=torch.float64) / PROCESSES
    distributed.all_reduce(mean)
    if distributed.get_rank() == 0:
        measure.report(arguments, seconds, mean.tolist(), measure.Memory(*memory.tolist()))
    distributed.destroy_process_group()
    # Gloo's threads may outlive the group, and now and then abort an interpreter that is taken down around them.
    sys.stdout.flush()
    os._exit(0)
