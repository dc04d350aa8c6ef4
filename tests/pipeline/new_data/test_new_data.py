"""`python -m pipeline.new_data`, on small folders and archives of noise."""

import io
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from pipeline import fetch, preprocess
from pipeline.config import CONF, PipelineError
from pipeline.config.data_schema import Data
from pipeline.config.schema import Config
from pipeline.data import dataset
from pipeline.new_data.command import main


@pytest.fixture(autouse=True)
def root(workspace, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(workspace))
    return workspace


def picture(seed, size=(40, 30), coloured=False):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (*size[::-1], 3), np.uint8)
    if not coloured:
        pixels[:] = pixels[..., :1]
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def pictures(classes="abc", count=20, name="{label}/{n:02}.png", **kinds):
    names = [(label, n) for label in classes for n in range(count)]
    return {
        name.format(label=label, n=n): picture(place, **kinds)
        for place, (label, n) in enumerate(names)
    }


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def written(name):
    """The definition, held against the schema."""
    text = f"conf/data/{name}.yaml"
    merged = OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load(text))
    data = OmegaConf.to_object(merged)
    assert isinstance(data, Data)
    return data


def run(caplog, *arguments):
    caplog.set_level("INFO", "pipeline.new_data.command")
    caplog.clear()
    main([str(each) for each in arguments])
    messages = [record.message for record in caplog.records]
    assert all(len(line) <= 80 for text in messages for line in text.splitlines())
    return "\n".join(messages)


def test_a_folder_is_described_fetched_split_and_prepared(root, caplog, configured):
    told = run(caplog, "mine", write(root / "in", pictures()))
    data = written("mine")
    assert data.classes == ["a", "b", "c"]
    assert data.shape == (32, 32, 1)
    assert (data.split.validation, data.split.test, data.split.group) == (9, 9, None)
    assert data.augmentation.repeat == round(20_000 / (60 - 18))  # of the training pictures
    assert (data.registered_model, data.mirrors) == ("mine", ["in"])
    assert "60 pictures of 3 classes" in told
    assert "20 of each: a, b, c" in told
    for words in ("40x30, all of them", "42 train, 9 validation, 9 test", "data: mine  "):
        assert words in told
    config = configured(1)
    config.data = data
    fetch.main(config)
    preprocess.main(config)
    assert len(dataset.load(root / "data/processed/mine.npz", "train")) == 42


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_an_archive_may_hold_other_things_beside_the_named_folder(root, caplog, ending):
    files = pictures(name="all/of/{label}/{n}.png") | {"all/other/x/1.png": picture(0)}
    if ending == "zip":
        zipped(root / "a.zip", files)
    else:
        with tarfile.open(root / "a.tar.gz", "w:gz") as archive:
            archive.add(write(root / "in", files), ".")
    run(caplog, "mine", f"a.{ending}/all/of")
    data = written("mine")
    assert list(data.files) == [f"mine.{ending}"]
    assert (data.folder.path, data.mirrors) == ("all/of", [f"a.{ending}"])


def test_the_folder_of_the_classes_is_found(root, caplog):
    run(caplog, "mine", zipped(root / "a.zip", pictures(name="top/in/{label}/{n}.png")))
    assert written("mine").folder.path == "top/in"


def test_colour_sizes_copies_balance_and_unreadable_files_are_told(root, caplog):
    files = pictures() | pictures("d", 70, size=(100, 90))
    files["a/red.png"] = picture(1000, coloured=True)
    files["b/00.png"] = files["a/00.png"]
    files["c/01.png"] = files["c/00.png"]
    files["c/broken.png"] = b"nothing"
    told = run(caplog, "mine", write(root / "in", files))
    assert written("mine").input.channels == 3
    assert "uneven: c has 20, d 70 pictures" in told
    assert "40x30 to 100x90, median 100x90" in told
    assert "colour      1 of the pictures" in told
    assert "1: c/broken.png (the bytes are not an image)" in told
    assert "2 pictures are there already; of several classes: 1: a/00.png =" in told
    assert "Repair or remove them, then repeat this with --force." in told
    assert written("mine").input.height == 96


def test_what_is_typed_goes_before_what_was_found(root, caplog):
    files = pictures(coloured=True)
    options = ("--size", "48", "--grey", "--preparation", "crop", "--names", "x,y,no")
    run(caplog, "mine", write(root / "in", files), *options)
    data = written("mine")
    assert data.shape == (48, 48, 1)
    assert data.preparation.value == "crop"
    assert data.classes == ["x", "y", "no"]
    assert data.folder.names == {"a": "x", "b": "y", "c": "no"}


def test_numbers_are_in_the_order_of_their_values(root, caplog):
    files = {
        f"{label}/{n}.png": picture(20 * label + n) for label in range(1, 12) for n in range(20)
    }
    run(caplog, "mine", write(root / "in", files))
    assert written("mine").labels == list(range(1, 12))


# Groups


@pytest.mark.parametrize("name", ["{label}/x_{n:02}.png", "{label}/w{n:02}-{label}.png"])
def test_writers_in_the_names_of_files_stay_together(root, caplog, name):
    told = run(caplog, "mine", write(root / "in", pictures(name=name)))
    assert "20 groups" in told
    assert "42 train, 9 validation, 9 test" in told
    run(caplog, "other", root / "in", "--group", "")
    assert written("other").split.group is None


def test_numbers_that_only_count_the_pictures_of_a_class_are_no_writers(root, caplog):
    files = {
        f"{label}/{place * 20 + n:03}_{n}x.png": picture(place * 20 + n)
        for place, label in enumerate("abc")
        for n in range(20)
    }
    run(caplog, "mine", write(root / "in", files))
    assert written("mine").split.group is None


def test_a_named_group_is_taken(root, caplog):
    files = pictures(name="{label}/{n:02}of.png")
    told = run(caplog, "mine", write(root / "in", files), "--group", r"(\d+)of")
    assert written("mine").split.group == r"(\d+)of"
    assert "20 groups" in told


@pytest.mark.parametrize(("group", "message"), [("(", "no regular expression"), ("x9", "no group")])
def test_a_group_that_does_not_fit_is_refused(root, caplog, group, message):
    with pytest.raises(PipelineError, match=message):
        run(caplog, "mine", write(root / "in", pictures()), "--group", group)
    assert not (root / "conf").exists()


def test_an_index_takes_the_place_of_folders(root, caplog):
    files = {f"{n}.png": picture(n) for n in range(60)}
    rows = "".join(f"{n}.png,{'abc'[n % 3]},w{n % 10}\n" for n in range(60))
    folder = write(root / "in", files | {"list.csv": f"file,label,writer\n{rows}".encode()})
    told = run(caplog, "mine", folder, "--index", "list.csv", "--group", "writer")
    data = written("mine")
    assert (data.folder.index, data.split.group) == ("list.csv", "writer")
    assert "writer, 10 groups" in told


# Refusals


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": b"", "2.png": b""}, "in no folder of a class"),
        ({"a/1.png": b"", "a/2.png": b""}, "in no folder of a class, in a"),
        ({"a/1.png": b"", "2.png": b""}, "in no folder of a class"),
        (pictures("ab", 2, "train/{label}/{n}.png") | {"test/a/9.png": b""}, "test, train, which"),
        ({"a/1.txt": b""}, "has no pictures"),
        ({"a/1.png": b"x", "b/2.png": b"y"}, "no picture can be read: the bytes are not"),
        (pictures("ab", 2), "few images of class a: 2, but 3 splits need one each"),
    ],
    ids=["flat", "one class", "stray", "splits", "no pictures", "unreadable", "few"],
)
def test_a_path_without_classes_is_refused_with_the_way_out(root, caplog, files, message):
    with pytest.raises(PipelineError, match=message):
        run(caplog, "mine", write(root / "in", files))
    assert not (root / "conf").exists()


def test_a_path_that_is_not_there_or_no_archive_is_named(root, caplog):
    with pytest.raises(PipelineError, match=r"in/there does not exist"):
        run(caplog, "mine", "in/there")
    (root / "a.rar").write_bytes(b"")
    with pytest.raises(PipelineError, match=r"a\.rar is no folder, and no \.zip"):
        run(caplog, "mine", "a.rar")


@pytest.mark.parametrize("name", ["Mine", "a b", "../x", "9", "testing", "a.b", ""])
def test_a_bad_name_is_refused(root, caplog, name):
    with pytest.raises(PipelineError, match="a data set's name is"):
        run(caplog, name, write(root / "in", pictures(count=3)))


def test_a_definition_is_replaced_by_force_only(root, caplog):
    folder = write(root / "in", pictures())
    run(caplog, "mine", folder)
    with pytest.raises(PipelineError, match=r"conf/data/mine\.yaml exists.*--force"):
        run(caplog, "mine", folder, "--size", "28")
    run(caplog, "mine", folder, "--size", "28", "--force")
    assert written("mine").input.height == 28


def test_other_names_than_classes_are_refused(root, caplog):
    with pytest.raises(PipelineError, match="--names has 2 names, but there are 3 classes"):
        run(caplog, "mine", write(root / "in", pictures()), "--names", "x,y")


def test_a_class_that_the_configuration_would_resolve_is_refused(root, caplog):
    folder = write(root / "in", pictures(["a", "${seed}"]))
    with pytest.raises(PipelineError, match=r"\$\{seed\}: a class's name has no \$"):
        run(caplog, "mine", folder)
    run(caplog, "mine", folder, "--names", "seed,a")


@pytest.mark.parametrize("label", ["no", "y", "null", "1e3", "007", "a: b", "é", "#1", "a, b", "'"])
def test_any_name_of_a_class_survives_yaml(root, caplog, label):
    run(caplog, "mine", write(root / "in", pictures(["zz", label])))
    assert written("mine").classes == sorted(["zz", label])
    loaded = yaml.safe_load((root / "conf/data/mine.yaml").read_text())
    assert loaded["classes"] == sorted(["zz", label])


def test_the_keys_are_those_of_the_schema(root, caplog):
    run(caplog, "mine", write(root / "in", pictures()))
    config = OmegaConf.merge(
        OmegaConf.structured(Config), {"data": OmegaConf.load(root / "conf/data/mine.yaml")}
    )
    assert set(OmegaConf.load(root / "conf/data/mine.yaml")) == set(config.data)


def test_the_command_says_an_error_in_one_line(root):
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.new_data", "Mine", str(root)],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Mine: a data set's name is")
    assert done.stderr.count("\n") == 1
