import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from support.bundles import picture

from pipeline.config import PipelineError
from pipeline.scoring import field
from serve.imaging.preparation import DIGITS

ONE = SimpleNamespace(  # reads a 1 in every picture
    description={"classes": list(range(10))},
    likelihood=None,
    preparation=DIGITS,
    predict=lambda images: (np.eye(10)[np.ones(len(images), int)], np.ones(len(images))),
)


@pytest.fixture
def folder(tmp_path):
    """A set that is a folder: three pictures of a 1."""
    ones = tmp_path / "field" / "own" / "1"
    ones.mkdir(parents=True)
    for name in "abc":
        (ones / f"{name}.png").write_bytes(picture())
    return tmp_path / "field"


def test_pictures_of_each_set_are_asked_evenly_spread(folder):
    with zipfile.ZipFile(folder / "others.ZIP", "w") as archive:
        for place in range(20):
            archive.writestr(f"{place // 10}/{place}.png", picture())
        archive.writestr("letters/a.png", picture())
    for name in ("README.md", ".hidden.zip"):
        (folder / name).touch()
    assert field.read(folder, 4, ONE) == field.Reading(right=3 + 2, pictures=3 + 4, sets=2)
    assert field.read(folder, 300, ONE) == field.Reading(right=3 + 10, pictures=3 + 20, sets=2)


def test_a_refused_picture_counts_as_misread(folder):
    (folder / "own" / "1" / "b.png").write_bytes(b"no picture")
    assert field.read(folder, 300, ONE) == field.Reading(right=2, pictures=3, sets=1)


def test_without_the_folder_there_is_no_reading(tmp_path):
    assert field.read(tmp_path / "field", 300, ONE) is None


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("bad.zip", b"no zip", r"bad\.zip is no sound zip"),
        ("empty/notes.txt", b"", "empty has no pictures"),
        ("letters/a/1.png", picture(), "letters has no picture in a folder of its class"),
    ],
)
def test_a_set_that_cannot_be_asked_is_named(folder, name, content, named):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(PipelineError, match=named):
        field.read(folder, 300, ONE)


def test_a_folder_without_a_set_is_named(tmp_path):
    (tmp_path / "README.md").touch()
    with pytest.raises(PipelineError, match="has no field set"):
        field.read(tmp_path, 300, ONE)
