from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.config.data_schema import Folder
from pipeline.reading.published import Published, is_test, places, require_classes

RAW = Path("data/raw/mine")


@pytest.fixture
def data(configured):
    return configured(1, "data.name=mine", "data.classes=[a,b,c]", "data.preparation=fit").data


def test_a_class_without_an_image_is_named(data):
    published = Published(np.zeros((2, 4, 4), np.uint8), np.array([0, 2], np.uint8), 0)
    with pytest.raises(PipelineError, match=r"no image of class b: add .* conf/data/mine\.yaml"):
        require_classes(published, data, RAW)
    require_classes(published._replace(labels=np.array([0, 1, 2])), data, RAW)


@pytest.mark.parametrize(
    ("folder", "wanted"),
    [(None, "b/"), (Folder("top/in"), "top/in/b/"), (Folder("top", None, {"x": "b"}), "top/x/")],
)
def test_the_missing_folder_of_a_class_is_named(data, folder, wanted):
    data.folder = folder
    published = Published(
        np.zeros((1, 4, 4), np.uint8), np.array([0], np.uint8), 0, names=["a/1.png"]
    )
    with pytest.raises(
        PipelineError, match=f"no image of class b, c; its folder would be {wanted}:"
    ):
        require_classes(published, data, RAW)


@pytest.mark.parametrize("labels", [[2, 0], ["c", "a"], [" c", "a "], [b"c", b"a"]])
def test_a_label_is_the_name_of_a_class_or_its_place(data, labels):
    assert places(np.array(labels), data, RAW).tolist() == [2, 0]


def test_where_classes_are_numbers_a_label_is_no_place(configured):
    data = configured(1, "data.classes=[1,2,3]", "data.preparation=fit").data
    assert places(np.array([1, 3]), data, RAW).tolist() == [0, 2]
    with pytest.raises(PipelineError, match=r"label 0 is none of the 3 classes \(1 to 3\)"):
        places(np.array([0, 1]), data, RAW)


@pytest.mark.parametrize(
    ("file", "expected"), [("test.zip", True), ("t10k-images", True), ("train.zip", False)]
)
def test_the_name_of_a_file_tells_the_test_set(file, expected):
    assert is_test(file) == expected
