"""`preprocess` on a few hundred small images, on the digits, and (slow) on the real MNIST."""

from __future__ import annotations

import copy
import csv
import functools
import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image
from support.feedback_entries import drawn

from pipeline import fetch, preprocess
from pipeline.config import CONF, Config, PipelineError, paths, register_schema, resolved
from pipeline.data import dataset
from pipeline.data.dataset import NAMES, Split, Splits, write_idx
from pipeline.preprocess import Published, read, split, statistics
from pipeline.reports import sample_sheet
from pipeline.user_feedback import export_file
from pipeline.user_feedback.export_file import Corrections

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared/mnist"
DIGITS = range(10)


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MNIST_MIRROR", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(ROOT))


def composed(data: str) -> Config:
    return copy.deepcopy(_composed(data))


@functools.cache
def _composed(data: str) -> Config:
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        picks = [f"data={data}", "seed=42", "threads=1", "runs=[1]"]
        return resolved(compose("config", picks), "1")


def arrays(training: int = 400, test: int = 100) -> Published:
    """Each image is unlike any other, and the digits are not equally frequent."""
    random = np.random.default_rng(0)
    size = training + test
    return Published(
        images=random.integers(0, 256, (size, 28, 28), np.uint8),
        labels=random.choice(10, size, p=np.arange(1, 11) / 55).astype(np.uint8),
        own_test=test,
    )


@pytest.fixture
def mnist() -> Config:
    """MNIST's configuration with 400 training and 100 test images, their files in place."""
    images, labels, _ = arrays()
    files = {
        "train-images-idx3-ubyte": images[:400],
        "train-labels-idx1-ubyte": labels[:400],
        "t10k-images-idx3-ubyte": images[400:],
        "t10k-labels-idx1-ubyte": labels[400:],
    }
    raw = paths.raw("mnist")
    raw.mkdir(parents=True)
    for name, array in files.items():
        (raw / name).write_bytes(write_idx(array))
    config = composed("mnist")
    config.data.split.validation = 40
    return config


def parts(splits: Splits) -> list[Split]:
    return [getattr(splits, name) for name in NAMES]


def loaded(name: str) -> Splits:
    return Splits(*(dataset.load(paths.processed(name), part) for part in NAMES))


@pytest.fixture
def mnist_feedback(mnist: Config) -> Config:
    """The same files and split, and 60 images that users told of; one of them is a test image."""
    paths.raw("mnist").rename(paths.raw("mnist_feedback"))
    told = [drawn(number) for number in range(1, 60)] + [arrays().images[450]]
    labels = (np.arange(60) % 10).astype(np.uint8)
    export_file.save(
        Corrections(np.stack(told), labels), paths.raw("mnist_feedback") / "feedback.npz"
    )
    config = composed("mnist_feedback")
    config.data.split.validation = 40
    config.data.feedback.least = 50
    config.data.feedback.largest_share = 0.5
    return config


# The split


def test_validation_comes_out_of_training_and_the_own_test_set_stays(mnist):
    preprocess.main(mnist)
    splits = loaded("mnist")
    assert [len(part) for part in parts(splits)] == [360, 40, 100]
    np.testing.assert_array_equal(splits.test.index, np.arange(400, 500))


def test_every_image_is_in_one_part_with_its_own_label_and_position(mnist):
    preprocess.main(mnist)
    published = arrays()
    index = np.concatenate([part.index for part in parts(loaded("mnist"))])
    assert sorted(index) == list(range(500))
    for part in parts(loaded("mnist")):
        assert part.index.dtype == np.int32
        assert (np.diff(part.index) > 0).all(), "not in the order of the files"
        np.testing.assert_array_equal(part.images, published.images[part.index])
        np.testing.assert_array_equal(part.labels, published.labels[part.index])


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_each_digit_has_the_same_share_in_training_and_validation(seed):
    published = arrays()
    wanted = np.bincount(published.labels[:400]) * 40 / 400
    found = np.bincount(split(published, 40, 0, seed).validation.labels, minlength=10)
    assert np.abs(found - wanted).max() <= 1


def test_a_part_without_own_test_set_is_stratified_too():
    published = arrays(500, 0)
    splits = split(published, 50, 100, seed=7)
    assert [len(part) for part in parts(splits)] == [350, 50, 100]
    for part, size in ((splits.validation, 50), (splits.test, 100)):
        wanted = np.bincount(published.labels) * size / 500
        assert np.abs(np.bincount(part.labels, minlength=10) - wanted).max() <= 1


def test_the_seed_decides_the_split_and_nothing_else_does(mnist):
    def digest(seed: int) -> str:
        mnist.seed = seed
        preprocess.main(mnist)
        return hashlib.sha256(paths.processed("mnist").read_bytes()).hexdigest()

    first, other, again = digest(1), digest(2), digest(1)
    assert first == again
    assert first != other


@pytest.mark.parametrize("size", [-1, 0, 9, 391, 400, 1_000_000])
def test_an_impossible_validation_size_is_refused_by_name(size):
    message = rf"data\.split\.validation is {size}, but must be from 10 .* to 390"
    with pytest.raises(PipelineError, match=message):
        split(arrays(), size, 0, seed=1)


@pytest.mark.parametrize("size", [-1, 9, 491])
def test_an_impossible_test_size_is_refused_by_name(size):
    with pytest.raises(PipelineError, match=rf"data\.split\.test is {size}, but must be from 10"):
        split(arrays(500, 0), 50, size, seed=1)


def test_a_digit_with_a_single_image_cannot_be_stratified():
    images, labels, _ = arrays()
    labels = np.where(np.arange(500) == 0, 9, labels % 9).astype(np.uint8)
    with pytest.raises(PipelineError, match=r"data\.split\.validation is 40.*least populated"):
        split(Published(images, labels, 100), 40, 0, seed=1)


@pytest.mark.parametrize(("own_test", "size"), [(100, 50), (0, 0)])
def test_there_is_one_test_set_neither_two_nor_none(own_test, size):
    with pytest.raises(PipelineError, match=r"data\.split\.test is .* test images of its own"):
        split(arrays(400, own_test), 40, size, seed=1)


# Feedback


def test_feedback_leaves_validation_and_test_images_as_they_are(mnist_feedback):
    preprocess.main(mnist_feedback)
    splits = loaded("mnist_feedback")
    plain = split(arrays(), 40, 0, mnist_feedback.seed)
    for name in ("validation", "test"):
        for found, wanted in zip(
            *(vars(getattr(parts, name)).values() for parts in (splits, plain)), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(splits.train.images[:360], plain.train.images)
    held_out = dataset.load_feedback(paths.processed("mnist_feedback"))
    assert held_out is not None
    assert len(splits.train) + len(held_out) == 360 + 59, "all, but for the test image"


def test_the_report_says_how_much_feedback_came_in(mnist_feedback, caplog):
    caplog.set_level("INFO")
    preprocess.main(mnist_feedback)
    report = json.loads((paths.DATA_REPORT / "statistics.json").read_text())["feedback"]
    assert (report["exported"], report["published"]) == (60, 1)
    assert report["train"] + report["held_out"] + report["above_share"] == 59
    assert "of 60 images of feedback" in caplog.text


def test_the_seed_does_not_move_what_is_held_out(mnist_feedback):
    def held_out(seed: int) -> bytes:
        mnist_feedback.seed = seed
        preprocess.main(mnist_feedback)
        found = dataset.load_feedback(paths.processed("mnist_feedback"))
        assert found is not None
        return found.images.tobytes()

    assert held_out(1) == held_out(2)


def test_too_little_feedback_is_refused(mnist_feedback):
    mnist_feedback.data.feedback.least = 60
    with pytest.raises(PipelineError, match="59 images of feedback are new"):
        preprocess.main(mnist_feedback)
    assert not paths.processed("mnist_feedback").exists()


def test_without_feedback_nothing_says_feedback(mnist):
    preprocess.main(mnist)
    with np.load(paths.processed("mnist")) as held:
        assert not [name for name in held if "feedback" in name]
    assert "feedback" not in json.loads((paths.DATA_REPORT / "statistics.json").read_text())


# Reading


def test_missing_raw_files_name_the_command_that_fetches_them():
    with pytest.raises(PipelineError, match=r"train-images.* python -m pipeline\.fetch data=mnist"):
        preprocess.main(composed("mnist"))


def test_unequal_numbers_of_images_and_labels_are_refused(mnist):
    path = paths.raw("mnist") / "t10k-labels-idx1-ubyte"
    path.write_bytes(write_idx(np.zeros(99, np.uint8)))
    with pytest.raises(PipelineError, match=r"images \(500, 28, 28\) for 499 labels"):
        preprocess.main(mnist)


def test_images_of_another_size_are_refused(mnist):
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (paths.raw("mnist") / name).write_bytes(write_idx(np.zeros((250, 32, 32), np.uint8)))
    with pytest.raises(PipelineError, match=r"images \(500, 32, 32\)"):
        preprocess.main(mnist)


def test_a_label_that_is_no_digit_is_refused(mnist):
    path = paths.raw("mnist") / "t10k-labels-idx1-ubyte"
    path.write_bytes(write_idx(np.full(100, 10, np.uint8)))
    with pytest.raises(PipelineError, match="label 10 is no digit"):
        preprocess.main(mnist)


def test_a_configuration_without_one_of_the_four_files_is_refused(mnist):
    del mnist.data.files["t10k-labels-idx1-ubyte"]
    with pytest.raises(PipelineError, match=r"conf/data/mnist\.yaml names no file t10k-labels"):
        preprocess.main(mnist)


@pytest.mark.parametrize("row", ["1,2,3", ",".join(["17"] + ["0"] * 64)])
def test_rows_that_are_no_8x8_images_are_refused(row):
    paths.raw("digits").mkdir(parents=True)
    (paths.raw("digits") / "digits.csv").write_text(f"{row}\n{row}\n")
    with pytest.raises(PipelineError, match="64 pixels from 0 to 16 and a digit"):
        read(paths.raw("digits"), composed("digits").data)


# The digits


def test_digits_become_1257_180_and_360_images_that_look_like_mnist():
    config = composed("digits")
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


# The report


def test_statistics_are_those_of_the_arrays():
    part = split(arrays(), 40, 0, seed=1).train
    found, pixels = statistics(part), part.images / 255
    assert found["count"] == 360
    assert found["digits"] == {str(d): int((part.labels == d).sum()) for d in DIGITS}
    assert found["mean"] == pytest.approx(pixels.mean(), abs=1e-6)
    assert found["std"] == pytest.approx(pixels.std(), abs=1e-6)
    assert found["ink"] == pytest.approx((part.images > 0).mean(), abs=1e-6)


@pytest.mark.parametrize("array", ["images", "labels", "index"])
def test_the_digest_tells_of_a_change_in_any_array(array):
    part = split(arrays(), 40, 0, seed=1).train
    changed = copy.deepcopy(part)
    getattr(changed, array)[0] += 1
    assert statistics(copy.deepcopy(part))["sha256"] == statistics(part)["sha256"]
    assert statistics(changed)["sha256"] != statistics(part)["sha256"]


def test_the_report_holds_the_figures_of_every_part(mnist):
    preprocess.main(mnist)
    report = json.loads((paths.DATA_REPORT / "statistics.json").read_text())
    assert (report["data"], report["seed"]) == ("mnist", 42)
    assert report["sha256"] == hashlib.sha256(paths.processed("mnist").read_bytes()).hexdigest()
    for name, part in zip(NAMES, parts(loaded("mnist")), strict=True):
        assert report[name] == statistics(part)


def test_the_table_of_classes_counts_each_digit_of_each_part(mnist):
    preprocess.main(mnist)
    with (paths.DATA_REPORT / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    for name, part in zip(NAMES, parts(loaded("mnist")), strict=True):
        counts = Counter(part.labels.tolist())
        of_part = [row for row in rows if row["split"] == name]
        assert [int(row["count"]) for row in of_part] == [counts[d] for d in DIGITS]
        assert [float(row["share"]) for row in of_part] == pytest.approx(
            [counts[d] / len(part) for d in DIGITS], abs=1e-6
        )


def test_the_report_is_the_same_bytes_each_time(mnist):
    def report() -> dict[str, bytes]:
        preprocess.main(mnist)
        return {path.name: path.read_bytes() for path in paths.DATA_REPORT.iterdir()}

    first = report()
    assert first == report()
    assert set(first) == {"statistics.json", "classes.csv", "samples.png"}


def sheet(splits: Splits, seed: int = 1) -> bytes:
    return sample_sheet.sample_sheet(splits, "mnist", seed)


def test_the_sample_sheet_is_a_picture_of_the_wished_size():
    with Image.open(io.BytesIO(sheet(split(arrays(), 40, 0, seed=1)))) as picture:
        assert picture.format == "PNG"
        assert picture.size == (sample_sheet.WIDTH, sample_sheet.HEIGHT)
        assert "Software" not in picture.info


def test_the_seed_chooses_the_samples():
    splits = split(arrays(), 40, 0, seed=1)

    def tiles(seed: int) -> bytes:
        with Image.open(io.BytesIO(sheet(splits, seed))) as picture:
            return picture.crop((72, 120, sample_sheet.WIDTH, sample_sheet.HEIGHT)).tobytes()

    assert tiles(1) == tiles(1)
    assert tiles(1) != tiles(2)


def test_the_sample_sheet_has_a_row_for_each_digit():
    """Images of digit d are grey 20 d + 30, so each row of tiles is of one grey."""
    labels = np.repeat(np.arange(10, dtype=np.uint8), 20)
    images = np.broadcast_to((20 * labels + 30)[:, None, None], (200, 28, 28))
    part = Split(images, labels, np.arange(200, dtype=np.int32))
    with Image.open(io.BytesIO(sheet(Splits(part, part, part)))) as picture:
        greys = np.asarray(picture.convert("L"))
    for digit in DIGITS:
        row = greys[120 + 60 * digit + 28]  # through the middle of its tiles
        assert (row == 20 * digit + 30).sum() == 20 * 56
        assert (row == 20 * ((digit + 1) % 10) + 30).sum() < 56


def test_a_digit_that_a_part_lacks_leaves_its_row_empty():
    part = split(arrays(), 40, 0, seed=1).train
    none = Split(part.images[:0], part.labels[:0], part.index[:0])
    with Image.open(io.BytesIO(sheet(Splits(part, none, part)))) as picture:
        assert picture.size == (sample_sheet.WIDTH, sample_sheet.HEIGHT)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason=f"no MNIST in {MNIST}")
def test_mnist_is_split_into_54000_6000_and_10000():
    config = composed("mnist")
    fetch.main(config)
    preprocess.main(config)
    splits = loaded("mnist")
    assert [len(part) for part in parts(splits)] == [54_000, 6_000, 10_000]
    np.testing.assert_array_equal(splits.test.index, np.arange(60_000, 70_000))
    index = np.concatenate([splits.train.index, splits.validation.index])
    np.testing.assert_array_equal(np.sort(index), np.arange(60_000))
    of_training = np.bincount(np.concatenate([splits.train.labels, splits.validation.labels]))
    assert np.abs(np.bincount(splits.validation.labels) - of_training / 10).max() <= 1
    report = json.loads((paths.DATA_REPORT / "statistics.json").read_text())
    # The mean and deviation that everyone uses for MNIST.
    assert report["train"]["mean"] == pytest.approx(0.1307, abs=2e-4)
    assert report["train"]["std"] == pytest.approx(0.3081, abs=2e-4)
