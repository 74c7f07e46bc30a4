"""Whether a command line of mpt's reads Fashion-MNIST from the cache. mpt knows best, but may not be built yet: where this is
wrong, it says itself what is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterator, Mapping, Sequence

FASHION_MNIST = "fashion-mnist"

# Commands that read a data set; of some only these tasks do, for the others compute what they need.
READERS = ("train", "rehearse", "eval")
TASKS = {"bench": ("loader",), "data": ("stats", "files", "pack")}

# What decides, in a recipe: in its section or not, no other key has these names.
SETTING = re.compile(r"""(?:^|[{,\s])(?:data\.)?(source|dir|base)\s*=\s*["']([^"']*)["']""")
# The longest chain of recipes that are based on one another.
DEEPEST = 8


def needed(arguments: Sequence[str], root: Path) -> bool:
    """Whether `mpt ARGUMENTS` reads Fashion-MNIST from the cache; `root` is the repository, with the shipped recipes."""
    if not reads(arguments) or {"--help", "-h"} & set(arguments):
        return False
    asked = {**recipe(arguments, root), **environment(), **flags(arguments)}
    return asked.get("source", FASHION_MNIST) == FASHION_MNIST and not asked.get("dir")


def reads(arguments: Sequence[str]) -> bool:
    """Whether the command reads a data set at all."""
    command = arguments[0] if arguments else ""
    return command in READERS or any(task in arguments[1:] for task in TASKS.get(command, ()))


def flags(arguments: Sequence[str]) -> Mapping[str, str]:
    """What flags say, the last of them last."""
    found = {}
    for assignment in values(arguments, "--set"):
        key, _, value = assignment.partition("=")
        if key.strip() in ("data.source", "data.dir"):
            found[key.strip()[len("data.") :]] = value.strip().strip("\"'")
    found.update({"dir": folder for folder in values(arguments, "--data-dir")})
    return found


def environment() -> Mapping[str, str]:
    """What the environment says."""
    names = {"source": "MPT_DATA_SOURCE", "dir": "MPT_DATA_DIR"}
    return {key: os.environ[name] for key, name in names.items() if name in os.environ}


def recipe(arguments: Sequence[str], root: Path) -> Mapping[str, str]:
    """What the recipe says: that of the run that is named, if one is, else the one that is asked for."""
    for path in (Path(argument.rpartition("=")[2] or argument) for argument in arguments[1:]):
        # A run's folder, or that of one of its checkpoints, perhaps by a link.
        for folder in (path, path.resolve().parent.parent) if path.is_dir() else ():
            if (folder / "recipe.toml").is_file():
                return settings(folder / "recipe.toml")
    found: dict[str, str] = {}
    names = values(arguments, "--recipe")
    name = names[-1] if names else ""
    for _ in range(DEEPEST):
        shipped = root / "src" / "recipe" / "shipped" / f"{name}.toml"
        read = settings(Path(name) if name.endswith(".toml") else shipped)
        found = {**read, **found}
        name = read.get("base", "")
    return found


def settings(path: Path) -> Mapping[str, str]:
    """What the file of a recipe says; of one that cannot be read, nothing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    code = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    return dict(reversed(SETTING.findall(code)))


def values(arguments: Sequence[str], option: str) -> Sequence[str]:
    """The values of an option, in either form."""

    def each() -> Iterator[str]:
        for argument, after in zip(arguments, [*arguments[1:], ""]):
            if argument == option:
                yield after
            elif argument.startswith(f"{option}="):
                yield argument[len(option) + 1 :]

    return list(each())
