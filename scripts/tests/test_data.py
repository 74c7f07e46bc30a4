"""Fashion-MNIST: known by its contents, from whichever source."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shlex
from unittest import mock

from setup_steps import announce, asked, data, sequence
from setup_steps.children import Children
from setup_steps.console import Console, SetupError
from setup_steps.places import Places

from .support import SCRIPTS, ScratchTest, Server

NAMES = ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
CONTENTS = {name: name.encode() * 1000 for name in NAMES}


class DataTest(ScratchTest):
    def setUp(self) -> None:
        super().setUp()
        sums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
        self.enter(mock.patch.object(data, "FASHION_MNIST", sums))
        self.server = self.enter(Server().running())
        self.server.files = {f"mirror/{name}": gzip.compress(content) for name, content in CONTENTS.items()}
        mirror = {data.MIRROR_VARIABLE: self.server.url + "mirror", "no_proxy": "127.0.0.1"}
        self.enter(mock.patch.dict(os.environ, mirror))
        self.places = Places(self.scratch, self.scratch / "cache", self.scratch / "target")
        self.console = Console(io.StringIO())

    def prepare(self) -> None:
        data.prepare(self.places, self.console, Children())

    def test_a_mirror_gives_all_files(self) -> None:
        self.assertFalse(data.ready(self.places))
        self.prepare()
        self.assertTrue(data.ready(self.places))
        for name, content in CONTENTS.items():
            self.assertEqual(gzip.decompress((self.places.data / name).read_bytes()), content)
        self.assertEqual([path.name for path in self.places.data.parent.iterdir()], ["fashion-mnist"])

    def test_files_put_there_by_hand_count_however_compressed(self) -> None:
        self.places.data.mkdir(parents=True)
        for name, content in CONTENTS.items():
            (self.places.data / name).write_bytes(gzip.compress(content, compresslevel=1))
        self.prepare()
        self.assertTrue(data.ready(self.places))
        self.assertEqual(self.server.asked, [])

    def test_other_contents_are_refused_with_the_remedies(self) -> None:
        self.server.files[f"mirror/{NAMES[0]}"] = gzip.compress(b"other")
        with self.assertRaises(SetupError) as caught:
            self.prepare()
        sentence = str(caught.exception)
        self.assertIn(f"{NAMES[0]} has other contents", sentence)
        for remedy in (data.DEBIAN_PACKAGE, str(self.places.data), "--set data.source=synthetic"):
            self.assertIn(remedy, sentence)
        self.assertEqual(caught.exception.code, 2)
        self.assertFalse(data.ready(self.places))

    def test_a_missing_file_names_the_source(self) -> None:
        del self.server.files[f"mirror/{NAMES[1]}"]
        with self.assertRaisesRegex(SetupError, "mirror: HTTP status 404"):
            self.prepare()

    def test_the_next_source_is_asked_when_one_fails(self) -> None:
        both = (data.Mirror(self.server.url + "nothing"), data.Mirror(self.server.url + "mirror"))
        with mock.patch.object(data, "sources", return_value=both):
            self.prepare()
        self.assertTrue(data.ready(self.places))

    def test_faults_of_a_file(self) -> None:
        path = self.scratch / NAMES[0]
        self.assertIn("is missing", data.fault(path))
        whole = gzip.compress(CONTENTS[NAMES[0]])
        for damaged in (whole[:-9], b"no gzip", whole[:20] + b"\0\0\0\0" + whole[24:]):
            path.write_bytes(damaged)
            self.assertIn("cannot be read", data.fault(path))
        path.write_bytes(whole)
        self.assertEqual(data.fault(path), "")

    def test_data_that_cannot_be_had_is_a_warning_where_mpt_is_called(self) -> None:
        self.server.files.clear()
        said = io.StringIO()
        for for_mpt in (True, False):
            missing = announce.Missing(False, 0, 0, False, False, True, 0)
            part = sequence.due(missing, self.places, (), Console(said), Children(), for_mpt)["Fashion-MNIST"]
            if for_mpt:
                part.job()
                self.assertIn("mpt: warning: Fashion-MNIST could not be had", said.getvalue())
            else:
                self.assertRaises(SetupError, part.job)


class NeededTest(ScratchTest):
    """Which command lines need it, in a folder with recipes and runs."""

    def setUp(self) -> None:
        super().setUp()
        self.enter(mock.patch.dict(os.environ))
        for name in ("MPT_DATA_DIR", "MPT_DATA_SOURCE"):
            os.environ.pop(name, None)
        before = os.getcwd()
        os.chdir(self.scratch)
        self.addCleanup(os.chdir, before)
        for name, text in {
            "own.toml": "# source = 'fashion-mnist'\n[data]\nsource = 'idx'\n",
            "line.toml": 'data = { flip = true, source = "noise" }\n',
            "based.toml": 'base = "imagenet-2012-half"\n[train]\nepochs = 1\n',
            "back.toml": 'base = "images"\ndata.source = "fashion-mnist"  # not source = "images"\n',
            "circle.toml": 'base = "circle.toml"\n',
            "runs/pictures/recipe.toml": '[data]\nsource = "images"\ndir = "/pictures"\n',
            "runs/chapter/recipe.toml": '[data]\nsource = "fashion-mnist"\ndir = ""\n',
        }.items():
            path = self.scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        checkpoints = self.scratch / "runs" / "pictures" / "checkpoints"
        (checkpoints / "step-00000469").mkdir(parents=True)
        (checkpoints / "best").symlink_to("step-00000469")

    def needed(self, line: str) -> bool:
        return asked.needed(shlex.split(line), SCRIPTS.parent)

    def test_commands_that_read_it(self) -> None:
        for line in (
            "train",
            "train --gpus 2",
            "train --recipe quick",
            "train --recipe there-is-none",
            "train --recipe back.toml",
            "train --recipe circle.toml",
            "train --recipe images --set data.source=fashion-mnist",
            "train --resume runs/chapter",
            "rehearse --gpus 2 --steps 3",
            "eval runs/latest",
            "eval --gpus 2 runs/chapter --json",
            "bench loader --json",
            "data files --out pictures",
        ):
            self.assertTrue(self.needed(line), line)

    def test_commands_that_read_nothing_or_something_else(self) -> None:
        for line in (
            "",
            "plan --gpus 2",
            "show model train",
            "verify",
            "bench step --json",
            "bench scaling",
            "bench exchange",
            "data",
            "train --help",
            "train --set data.source=synthetic",
            "train --set=data.source=synthetic",
            "train --set 'data.source = \"pack\"'",
            "rehearse --set data.source=shards",
            "train --set data.dir=/somewhere",
            "train --data-dir /somewhere",
            "train --data-dir=/somewhere",
            "train --recipe images",
            "train --recipe=imagenet-2012-code",
            "train --recipe own.toml",
            "train --recipe line.toml",
            "train --recipe based.toml",
            "train --resume=runs/pictures",
            "eval runs/pictures",
            "eval --gpus 2 runs/pictures/checkpoints/best",
            "data stats --recipe images --out stats.safetensors",
        ):
            self.assertFalse(self.needed(line), line)

    def test_the_environment_comes_between_recipe_and_flags(self) -> None:
        os.environ["MPT_DATA_SOURCE"] = "images"
        self.assertFalse(self.needed("train"))
        self.assertTrue(self.needed("train --set data.source=fashion-mnist"))
        os.environ["MPT_DATA_SOURCE"] = "fashion-mnist"
        self.assertTrue(self.needed("train --recipe own.toml"))
        os.environ["MPT_DATA_DIR"] = "/somewhere"
        self.assertFalse(self.needed("train"))
