"""Who takes part, how each is called, and what of its output counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from peers.running import Failed

HERE = Path(__file__).resolve().parent
BATCH = 128
# What mpt is to do to an image: that which torchvision_loader.py does.
WORK = {
    "model.input": "[3,224,224]",
    "model.classes": "data",
    "data.source": "images",
    "data.side": 256,
    "data.subtract": "channels",
    "data.divide": "true",
    "data.flip": "true",
    "train.batch_size": BATCH,
}


class Contestant(NamedTuple):
    name: str
    title: str
    arguments: tuple[str, ...]  # of the peer
    cores: int

    @property
    def is_mpt(self) -> bool:
        return self.name.startswith("mpt")


def contestants(cores: int) -> list[Contestant]:
    """All of them: on one core, and on all cores of the machine if it has more."""
    ways = [("pillow", "torchvision, as installed (Pillow)"), ("tensors", "torchvision, decode_jpeg and tensors")]
    found = [Contestant("mpt", "mpt", (), 1)]
    for decoder, title in ways:
        found.append(Contestant(decoder, title, (f"--decoder={decoder}",), 1))
        found.append(Contestant(f"{decoder}-worker", f"{title}, a worker", (f"--decoder={decoder}", "--workers=1"), 1))
    if cores > 1:
        found.append(Contestant("mpt-all", "mpt", (), cores))
        for decoder, title in ways:
            arguments = (f"--decoder={decoder}", f"--workers={cores}")
            found.append(Contestant(f"{decoder}-all", f"{title}, {cores} workers", arguments, cores))
    return found


def command(contestant: Contestant, mpt: Path, python: Path, folder: Path) -> list[str]:
    """How it is called."""
    if contestant.is_mpt:
        settings = {**WORK, "data.dir": folder, "data.readers": contestant.cores}
        more = [f"--set={key}={value}" for key, value in settings.items()]
        return [str(mpt), "bench", "loader", "--json", *more]
    peer = str(HERE / "torchvision_loader.py")
    return [str(python), peer, *contestant.arguments, f"--batch-size={BATCH}", str(folder)]


def result(contestant: Contestant, output: str, images: int) -> dict:
    """Images, seconds and seconds of processor time of an epoch: of mpt, the one with everything that it does to images."""
    try:
        told = json.loads(output if contestant.is_mpt else output.strip().splitlines()[-1])
        found = told["rows"][-1] if contestant.is_mpt else told
        kept = {key: found[key] for key in ("images", "seconds", "processor_seconds")}
        rate = kept["images"] / kept["seconds"]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Failed("it printed no JSON with a result") from error
    if kept["images"] != images:
        raise Failed(f"it read {kept['images']} images in place of {images}")
    return {**kept, "images_per_second": rate}
