"""The example pictures in colour: as `conf/data/shapes.yaml` describes them."""

import hashlib
import subprocess
import sys

import yaml
from PIL import Image

from docs.examples.shapes import SHAPES
from pipeline import fetch, preprocess
from pipeline.archives.packing import pack
from pipeline.config import CONF
from pipeline.data import dataset

DEFINITION = yaml.safe_load((CONF / "data/shapes.yaml").read_text())


def test_the_pictures_are_those_that_the_configuration_names(tmp_path, monkeypatch, configured):
    folder = tmp_path / "data/shapes"
    command = [sys.executable, "-m", "docs.examples.shapes", str(folder)]
    told = subprocess.run(command, cwd=CONF.parent, check=True, capture_output=True, text=True)
    assert told.stdout.startswith("4,500 pictures of 12 shapes")
    pack(folder, tmp_path / "shapes.zip")
    digest = hashlib.sha256((tmp_path / "shapes.zip").read_bytes()).hexdigest()
    assert {"shapes.zip": digest} == DEFINITION["files"]
    counts = {name: len(list((folder / name).iterdir())) for name in SHAPES}
    assert max(counts.values()) == 4 * min(counts.values()) == 600

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    config = configured(1, "data=shapes")
    fetch.main(config)
    preprocess.main(config)
    train = dataset.load(tmp_path / "data/processed/shapes.npz", "train")
    assert train.images.shape == (3150, 32, 32, 3)
    label = DEFINITION["classes"][train.labels[0]]
    stored = {each.tobytes() for each in train.images[train.labels == train.labels[0]]}
    some = [Image.open(folder / label / f"{n:04}.bmp") for n in range(20)]
    assert sum(picture.tobytes() in stored for picture in some) > 8, "stored as they are"
