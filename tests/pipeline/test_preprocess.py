"""`preprocess` on a few hundred small images, on the digits, and (slow) on the real MNIST."""

import copy
import csv
import hashlib
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.feedback_entries import noise

from pipeline import fetch, preprocess
from pipeline.config import PipelineError, paths
from pipeline.data import dataset
from pipeline.data.dataset import NAMES, Splits
from pipeline.preprocess import statistics
from pipeline.reading import arrays as arrays_of_format
from pipeline.reading.published import Published
from pipeline.reading.splits import split
from pipeline.storage.idx import write_idx
from pipeline.user_feedback import export_file
from pipeline.user_feedback.export_file import Export
from serve.decoding.decode import decode
from serve.imaging.preparation import Preparation

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared/mnist"
LETTERS = ROOT.parent / "shared/omniglot"
DIGITS = range(10)
CLASSES = [str(digit) for digit in DIGITS]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(ROOT))


def arrays(training=400, test=100):
    """Each image is unlike any other and normalised, and the digits are not equally frequent."""
    random = np.random.default_rng(0)
    size = training + test
    images = np.zeros((size, 28, 28), np.uint8)
    images[:, 4:24, 4:24] = random.integers(100, 256, (size, 20, 20))
    return Published(
        images=images,
        labels=random.choice(10, size, p=np.arange(5, 15) / 95).astype(np.uint8),
        own_test=test,
    )


def write_raw(data):
    images, labels, *_ = arrays()
    files = {
        "train-images-idx3-ubyte": images[:400],
        "train-labels-idx1-ubyte": labels[:400],
        "t10k-images-idx3-ubyte": images[400:],
        "t10k-labels-idx1-ubyte": labels[400:],
    }
    paths.raw(data).mkdir(parents=True)
    for name, array in files.items():
        (paths.raw(data) / name).write_bytes(write_idx(array))


@pytest.fixture
def mnist(configured):
    """MNIST's configuration with 400 training and 100 test images, their files in place."""
    write_raw("mnist")
    return configured(1, "data.split.validation=40")


@pytest.fixture
def mnist_feedback(configured):
    """The same files and split, and 60 images of feedback; one of them is a test image."""
    write_raw("mnist_feedback")
    images = [noise(number) for number in range(1, 60)] + [arrays().images[450]]
    export = Export(np.stack(images), (np.arange(60) % 10).astype(np.uint8), noise(99)[None])
    export_file.save(export, paths.raw("mnist_feedback") / "feedback.npz")
    return configured(
        1,
        "data=mnist_feedback",
        "data.split.validation=40",
        "data.feedback.least=50",
        "data.feedback.largest_share=0.5",
    )


def parts(splits):
    return [getattr(splits, name) for name in NAMES]


def loaded(name):
    return Splits(*(dataset.load(paths.processed(name), part) for part in NAMES))


def report():
    return json.loads((paths.DATA_REPORT / "statistics.json").read_text())


# The split


def test_validation_comes_out_of_training_and_each_image_keeps_its_label_and_position(mnist):
    preprocess.main(mnist)
    splits, published = loaded("mnist"), arrays()
    assert [len(part) for part in parts(splits)] == [360, 40, 100]
    np.testing.assert_array_equal(splits.test.index, np.arange(400, 500))
    assert sorted(np.concatenate([part.index for part in parts(splits)])) == list(range(500))
    for part in parts(splits):
        assert part.index.dtype == np.int32
        assert (np.diff(part.index) > 0).all(), "not in the order of the files"
        np.testing.assert_array_equal(part.images, published.images[part.index])
        np.testing.assert_array_equal(part.labels, published.labels[part.index])


# Feedback


def test_feedback_leaves_validation_and_test_images_as_they_are(mnist_feedback, caplog):
    caplog.set_level("INFO")
    preprocess.main(mnist_feedback)
    splits = loaded("mnist_feedback")
    plain = split(arrays(), mnist_feedback.data, mnist_feedback.seed)
    for name in ("validation", "test"):
        for found, wanted in zip(
            *(vars(getattr(parts, name)).values() for parts in (splits, plain)), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(splits.train.images[:360], plain.train.images)
    nondigits = dataset.load_nondigits(paths.processed("mnist_feedback"))
    np.testing.assert_array_equal(nondigits, [noise(99)])
    assert report()["feedback"]["nondigits"] == 1
    held_out = dataset.load_feedback(paths.processed("mnist_feedback"))
    assert held_out is not None
    assert len(splits.train) + len(held_out) == 360 + 59, "all, but for the test image"
    counts = report()["feedback"]
    assert (counts["exported"], counts["published"]) == (60, 1)
    assert counts["train"] + counts["held_out"] + counts["above_share"] == 59
    assert "60 images of feedback" in caplog.text


# Reading


def test_missing_raw_files_name_the_command_that_fetches_them(configured):
    with pytest.raises(PipelineError, match=r"train-images.* python -m pipeline\.fetch data=mnist"):
        preprocess.main(configured(1))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"t10k-labels-idx1": np.zeros(99)}, r"images \(100, 28, 28\) for labels \(99,\)"),
        (
            {"t10k-labels-idx1": np.full(100, 25)},
            r"t10k-labels-idx1-ubyte: label 25 is none of the 10 classes \(0 to 9\): add it to "
            r"`classes` in conf/data/mnist\.yaml",
        ),
        ({"t10k-images-idx3": np.zeros((100, 32, 32))}, "images of several sizes"),
        ({"train-images-idx3": np.zeros((400, 28, 28))}, "image 0: no digit found"),
    ],
    ids=["too few labels", "no class", "two sizes", "no digit"],
)
def test_files_that_do_not_fit_are_refused(mnist, files, message):
    for name, array in files.items():
        content = write_idx(array.astype(np.uint8))
        (paths.raw("mnist") / f"{name}-ubyte").write_bytes(content)
    with pytest.raises(PipelineError, match=message):
        preprocess.main(mnist)


def test_a_configuration_without_one_of_the_four_files_is_refused(mnist):
    del mnist.data.files["t10k-labels-idx1-ubyte"]
    with pytest.raises(PipelineError, match=r"conf/data/mnist\.yaml names no file t10k-labels"):
        preprocess.main(mnist)


# The real data sets


def test_digits_become_1257_180_and_360_images_that_look_like_mnist(configured):
    config = configured(1, "data=digits")
    fetch.main(config)
    preprocess.main(config)
    splits = loaded("digits")
    assert [len(part) for part in parts(splits)] == [1257, 180, 360]
    assert sorted(np.concatenate([part.index for part in parts(splits)])) == list(range(1797))
    images = splits.train.images
    assert images.shape[1:] == (28, 28)
    assert images.max() == 255
    assert max(np.ptp(np.nonzero(image)[0]) + 1 for image in images) == 20
    mass = images.astype(float).sum((0, 1))
    assert float(mass @ np.arange(28) / mass.sum()) == pytest.approx(14, abs=0.2)
    assert all(unchanged_by_the_service(part, config.data) for part in parts(splits))


def unchanged_by_the_service(part, data):
    """Whether the service would see each stored image as it is."""
    served = Preparation.of({"input": {"shape": data.shape, "preparation": data.preparation.value}})
    return all((served(image).image == image).all() for image in part.images)


@pytest.mark.skipif(not LETTERS.is_dir(), reason=f"no Omniglot in {LETTERS}")
def test_letters_of_a_writer_are_in_one_split(configured):
    config = configured(1, "data=letters")
    fetch.main(config)
    preprocess.main(config)
    splits = loaded("letters")
    assert [len(part) for part in parts(splits)] == [14 * 26, 3 * 26, 3 * 26]
    writers = [{int(place) % 20 for place in part.index} for part in parts(splits)]
    assert [len(each) for each in writers] == [14, 3, 3], "20 files of each letter, by writer"
    for part in parts(splits):
        assert (np.bincount(part.labels) == len(part) / 26).all()
    assert report()["test"]["classes"]["z"] == 3
    assert all(unchanged_by_the_service(part, config.data) for part in parts(splits))
    served = Preparation("fit", 32, 32, 1)
    with zipfile.ZipFile(paths.raw("letters") / "letters.zip") as archive:
        names = sorted(n for n in archive.namelist() if "/Latin/" in n and n.endswith(".png"))
        for part in parts(splits):
            sent = archive.read(names[part.index[-1]])
            seen = served(decode(sent, max_pixels=10**6).pixels).image
            np.testing.assert_array_equal(part.images[-1], seen)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}")
def test_mnist_is_split_into_54000_6000_and_10000_and_each_image_stays_as_it_is(configured):
    config = configured(1)
    fetch.main(config)
    preprocess.main(config)
    splits = loaded("mnist")
    assert [len(part) for part in parts(splits)] == [54_000, 6_000, 10_000]
    np.testing.assert_array_equal(splits.test.index, np.arange(60_000, 70_000))
    index = np.concatenate([splits.train.index, splits.validation.index])
    np.testing.assert_array_equal(np.sort(index), np.arange(60_000))
    of_training = np.bincount(np.concatenate([splits.train.labels, splits.validation.labels]))
    assert np.abs(np.bincount(splits.validation.labels) - of_training / 10).max() <= 1
    # The mean and deviation that everyone uses for MNIST.
    assert report()["train"]["mean"] == pytest.approx(0.1307, abs=2e-4)
    assert report()["train"]["std"] == pytest.approx(0.3081, abs=2e-4)
    published = arrays_of_format.read(paths.raw("mnist"), config.data)
    assert len(published.pixels) == 70_000
    for part in parts(splits):
        np.testing.assert_array_equal(part.images, published.pixels[part.index])
    committed = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]["preprocess"]["outs"]
    digest = hashlib.md5(paths.processed("mnist").read_bytes(), usedforsecurity=False)
    assert digest.hexdigest() in [out["md5"] for out in committed]


# The report


def test_statistics_describe_the_arrays(mnist):
    part = split(arrays(), mnist.data, seed=1).train
    found, pixels = statistics(part, CLASSES), part.images / 255
    assert found["count"] == 360
    assert found["classes"] == {str(d): int((part.labels == d).sum()) for d in DIGITS}
    assert found["mean"] == pytest.approx(pixels.mean(), abs=1e-6)
    assert found["std"] == pytest.approx(pixels.std(), abs=1e-6)
    assert found["ink"] == pytest.approx((part.images > 0).mean(), abs=1e-6)


@pytest.mark.parametrize("array", ["images", "labels", "index"])
def test_the_digest_covers_every_array(array, mnist):
    part = split(arrays(), mnist.data, seed=1).train
    changed = copy.deepcopy(part)
    getattr(changed, array)[0] += 1
    assert statistics(copy.deepcopy(part), CLASSES)["sha256"] == statistics(part, CLASSES)["sha256"]
    assert statistics(changed, CLASSES)["sha256"] != statistics(part, CLASSES)["sha256"]


def test_the_report_describes_every_split(mnist):
    preprocess.main(mnist)
    assert (report()["data"], report()["seed"]) == ("mnist", 42)
    assert report()["sha256"] == hashlib.sha256(paths.processed("mnist").read_bytes()).hexdigest()
    with (paths.DATA_REPORT / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    for name, part in zip(NAMES, parts(loaded("mnist")), strict=True):
        assert report()[name] == statistics(part, CLASSES)
        counts = Counter(part.labels.tolist())
        of_part = [row for row in rows if row["split"] == name]
        assert [int(row["count"]) for row in of_part] == [counts[d] for d in DIGITS]
        assert [float(row["share"]) for row in of_part] == pytest.approx(
            [counts[d] / len(part) for d in DIGITS], abs=1e-6
        )


def test_the_seed_alone_decides_the_bytes_of_splits_and_report(mnist):
    def files(seed):
        mnist.seed = seed
        preprocess.main(mnist)
        written = (paths.processed("mnist"), *paths.DATA_REPORT.iterdir())
        return {path.name: path.read_bytes() for path in written}

    first, other = files(1), files(2)
    assert first == files(1)
    assert first.keys() == {"mnist.npz", "statistics.json", "classes.csv", "samples.png"}
    assert first["mnist.npz"] != other["mnist.npz"]
