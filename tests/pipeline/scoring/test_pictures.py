from pathlib import Path

import pytest

from pipeline.config import PipelineError
from pipeline.scoring import pictures

CLASSES = [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["0/a.png", "7/b.png"], [0, 7]),
        (["top/0/a.png", "top/7/writer/b.png"], [0, 7]),
        (["a/b/3/a.png", "a/b/4/b.png"], [3, 4]),
        (["top/7/a.png"], [7]),
        (["top\\0\\a.png", "top\\1\\a.png"], [0, 1]),
        (["0/a.png", "letters/b.png", "c.png"], [0, -1, -1]),
        (["top/0/a.png", "top/1/b.png", "c.png"], [0, 1, -1]),
        (["2024/05/a.png", "2025/06/b.png"], [-1, -1]),
        (["a.png", "b.png"], [-1, -1]),
        (["10/a.png", "03/b.png"], [-1, -1]),
    ],
)
def test_a_picture_is_labelled_by_its_folder(names, labels):
    assert pictures.labels(names, CLASSES) == labels


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["/x/a.zip", "/x/b.zip", "/y/a"], ["a.zip", "b.zip", "a"]),
        (["/x/a.zip", "/y/a.zip", "/x/b.zip"], ["x/a.zip", "y/a.zip", "b.zip"]),
        (["/x/z/a", "/y/z/a", "/a"], ["x/z/a", "y/z/a", "/a"]),
    ],
)
def test_sources_of_the_same_name_stay_distinguishable(sources, names):
    assert pictures.named(list(map(Path, sources))) == dict(
        zip(names, map(Path, sources), strict=True)
    )


def test_a_source_given_twice_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="given twice"):
        pictures.named([tmp_path, tmp_path / "a" / ".."])


def test_names_that_begin_with_a_dot_and_a_slash_are_names():
    assert pictures.labels(["./0/a.png", "./1/b.png"], CLASSES) == [0, 1]
