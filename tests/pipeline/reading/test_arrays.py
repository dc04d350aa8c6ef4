import gzip

import numpy as np
import pytest

from pipeline.config import PipelineError
from pipeline.reading import arrays
from pipeline.storage.idx import write_idx

NAMED = "data.classes=[coat,bag,shoe]"


@pytest.fixture
def data(configured):
    """Describes three classes of grey 8x9 images, unless told otherwise."""

    def describe(kind, *names, overrides=()):
        size = ("data.input.height=8", "data.input.width=9", "data.preparation=fit")
        config = configured(1, f"data.format={kind}", NAMED, *size, *overrides)
        config.data.files = dict.fromkeys(names, "")
        return config.data

    return describe


def images(count, *channels, size=(8, 9)):
    return np.random.default_rng(count).integers(0, 256, (count, *size, *channels), np.uint8)


# IDX


def test_compressed_idx_files_are_read_and_labels_are_places_in_the_classes(tmp_path, data):
    content = {
        "train-images-idx3-ubyte.gz": images(4),
        "train-labels-idx1-ubyte.gz": np.array([0, 1, 2, 2], np.uint8),
        "t10k-images-idx3-ubyte.gz": images(2),
        "t10k-labels-idx1-ubyte.gz": np.array([1, 0], np.uint8),
    }
    for name, array in content.items():
        (tmp_path / name).write_bytes(gzip.compress(write_idx(array)))
    found = arrays.read(tmp_path, data("idx", *content))
    np.testing.assert_array_equal(found.pixels, np.concatenate([images(4), images(2)]))
    assert found.labels.tolist() == [0, 1, 2, 2, 1, 0]
    assert found.own_test == 2
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    with pytest.raises(PipelineError, match=r"train-images-idx3-ubyte\.gz: Not a gzipped file"):
        arrays.read(tmp_path, data("idx", *content))


# npz


@pytest.mark.parametrize("labels", [[2, 0, 1], ["shoe", "coat", "bag"], [[2], [0], [1]]])
def test_arrays_of_images_and_labels(tmp_path, data, labels):
    np.savez(tmp_path / "a.npz", images=images(3), labels=np.array(labels))
    found = arrays.read(tmp_path, data("npz", "a.npz"))
    np.testing.assert_array_equal(found.pixels, images(3))
    assert (found.labels.tolist(), found.own_test) == ([2, 0, 1], 0)


@pytest.mark.parametrize("files", ["one", "two"])
def test_the_test_set_comes_last_in_keras_names_or_in_a_file_of_its_own(tmp_path, data, files):
    if files == "one":
        parts = {"x_test": images(1), "y_test": [2], "x_train": images(2), "y_train": [0, 1]}
        np.savez(tmp_path / "all.npz", **parts)
    else:
        np.savez(tmp_path / "test.npz", images=images(1), labels=[2])
        np.savez(tmp_path / "train.npz", images=images(2), labels=[0, 1])
    names = sorted(path.name for path in tmp_path.iterdir())
    found = arrays.read(tmp_path, data("npz", *names))
    assert (found.labels.tolist(), found.own_test) == ([0, 1, 2], 1)
    np.testing.assert_array_equal(found.pixels[2:], images(1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.zeros((3, 8, 9)), "labels": [0, 1, 2]}, "the images are float64: .*uint8"),
        ({"images": images(3), "labels": [0, 1]}, r"images \(3, 8, 9\) for labels \(2,\)"),
        ({"images": images(3)[0], "labels": [0] * 8}, r"images \(8, 9\)"),
        ({"images": images(3), "labels": [0, 1, 25]}, "label 25 is none of the 3 classes"),
        ({"images": images(3), "labels": ["bag", "hat", "bag"]}, "label hat is none of .*classes`"),
        ({"pictures": images(3), "labels": [0, 1, 2]}, "has the arrays pictures, labels: name"),
        ({"images": images(3), "labels": np.array([{}])}, r"no \.npz of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, data, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(PipelineError, match=rf"a\.npz.*{message}"):
        arrays.read(tmp_path, data("npz", "a.npz"))


def test_a_file_that_is_no_npz_is_named(tmp_path, data):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(PipelineError, match=r"a\.npz: no \.npz"):
        arrays.read(tmp_path, data("npz", "a.npz"))


# CSV


def rows(pixels, labels, place=-1):
    lines = [[*row] for row in pixels.reshape(len(pixels), -1).tolist()]
    for line, label in zip(lines, labels, strict=True):
        line.insert(len(line) if place < 0 else place, label)
    return "\n".join(",".join(map(str, line)) for line in lines) + "\n"


@pytest.mark.parametrize("place", [-1, 0], ids=["last", "first"])
@pytest.mark.parametrize("labels", [[2, 0, 1], ["shoe", "coat", "bag"]], ids=["places", "names"])
def test_the_label_is_first_or_last_in_a_row(tmp_path, data, place, labels):
    (tmp_path / "a.csv").write_text(rows(images(3), labels, place))
    found = arrays.read(tmp_path, data("csv", "a.csv"))
    np.testing.assert_array_equal(found.pixels, images(3))
    assert found.labels.tolist() == [2, 0, 1]


def test_a_line_of_titles_names_the_column(tmp_path, data):
    titles = ",".join(["a", "Label", *(f"p{n}" for n in range(71))])
    (tmp_path / "a.csv").write_text(f"{titles}\n{rows(images(2), [2, 1], 1)}")
    found = arrays.read(tmp_path, data("csv", "a.csv"))
    np.testing.assert_array_equal(found.pixels, images(2))
    assert found.labels.tolist() == [2, 1]
    (tmp_path / "a.csv").write_text(titles.replace("Label", "kind"))
    with pytest.raises(PipelineError, match="no column is called label or class, but a, kind, p0"):
        arrays.read(tmp_path, data("csv", "a.csv"))


def test_rows_of_a_square_and_of_colours_are_read(tmp_path, data):
    (tmp_path / "a.csv").write_text(rows(images(2, size=(5, 5)), [0, 2]))
    (tmp_path / "test.csv").write_text(rows(images(1, size=(5, 5)), [1]))
    found = arrays.read(tmp_path, data("csv", "test.csv", "a.csv"))
    assert (found.pixels.shape, found.own_test) == ((3, 5, 5), 1)
    (tmp_path / "a.csv").write_text(rows(images(2, 3), [0, 2]))
    coloured = data("csv", "a.csv", overrides=["data.input.channels=3"])
    np.testing.assert_array_equal(arrays.read(tmp_path, coloured).pixels, images(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1,2,3\n", r"rows must be 8 x 9 x 1 pixels .* not 3 columns"),
        (rows(images(2), [0, 3]), "label 3 is none of the 3 classes"),
        (rows(images(2), [0, 1]) + "1,2\n", "rows must be pixels from 0 to 255"),
        (rows(images(2) + np.full(1, 300, int), [0, 1]), "rows must be pixels from 0 to 255"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path, data, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(PipelineError, match=rf"a\.csv: .*{message}"):
        arrays.read(tmp_path, data("csv", "a.csv"))


def test_the_scanned_digits_grey_levels_are_spread(tmp_path, configured):
    scanned = np.random.default_rng(1).integers(0, 17, (3, 8, 8), np.uint8)
    (tmp_path / "digits.csv").write_text(rows(scanned, [4, 5, 6]))
    digits = configured(1, "data=digits").data
    assert arrays.read(tmp_path, digits).pixels.shape == (3, 28, 28)
    fitted = configured(1, "data=digits", "data.preparation=fit").data
    found = arrays.read(tmp_path, fitted).pixels
    np.testing.assert_array_equal(found, (scanned * 15.9375).round())


def test_groups_need_names_of_files(tmp_path, data):
    with pytest.raises(PipelineError, match=r"data\.split\.group needs format=folder"):
        arrays.read(tmp_path, data("npz", "a.npz", overrides=["data.split.group='(.)'"]))
