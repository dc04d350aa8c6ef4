import tarfile
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.config import PipelineError
from pipeline.config.data_schema import Folder
from pipeline.reading import folder
from serve.imaging.preparation import Preparation


def png(seed, size=(12, 10), mode="L"):
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    with BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def pixels(content, channels=1):
    with Image.open(BytesIO(content)) as image:
        return np.asarray(image.convert("RGB" if channels == 3 else "L"))


FILES = {f"top/{label}/{n}_{label}.png": png(n + 10 * ord(label)) for label in "ab" for n in (1, 2)}


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.fixture
def read(configured, tmp_path):
    """Reads archives of these files by a description of two classes of 10x12 images."""

    def run(files=FILES, path="", index=None, names=None, group=None, channels=1, **archives):
        archives = archives or {"all.zip": files}
        for name, content in archives.items():
            zipped(tmp_path / name, content)
        data = configured(
            *(1, "data.format=folder", "data.classes=[a,b]", "data.preparation=fit"),
            f"data.input={{height: 10, width: 12, channels: {channels}}}",
        ).data
        data.files = dict.fromkeys(archives, "")
        data.folder, data.split.group = Folder(path, index, names or {}), group
        return folder.read(tmp_path, data, Preparation("fit", *data.shape))

    return run


def test_each_folder_is_a_class_and_pictures_of_the_size_stay_as_they_are(read):
    found = read(FILES, "top")
    assert found.names == sorted(FILES)
    assert (found.labels.tolist(), found.own_test) == ([0, 0, 1, 1], 0)
    for name, image in zip(found.names, found.images, strict=True):
        np.testing.assert_array_equal(image, pixels(FILES[name]))


def test_colours_stay_and_other_sizes_are_prepared(read):
    files = {"a/1.png": png(1, mode="RGB"), "b/2.png": png(2, (24, 20), "RGB")}
    found = read(files, channels=3)
    assert found.images.shape == (2, 10, 12, 3)
    np.testing.assert_array_equal(found.images[0], pixels(files["a/1.png"], 3))
    fitted = Preparation("fit", 10, 12, 3)(pixels(files["b/2.png"], 3)).image
    np.testing.assert_array_equal(found.images[1], fitted)


def test_a_tar_gives_the_same_as_a_zip(read, monkeypatch):
    def tarred(path, files):
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, BytesIO(content))

    wanted = read(FILES, "top")
    monkeypatch.setitem(globals(), "zipped", tarred)
    found = read(None, "top", **{"all.tgz": FILES})
    np.testing.assert_array_equal(found.images, wanted.images)
    assert found.names == wanted.names


def test_an_archive_named_test_is_the_test_set(read):
    parts = [dict(list(FILES.items())[start::2]) for start in (0, 1)]
    found = read(None, "top", **{"test.zip": parts[0], "train.zip": parts[1]})
    assert found.own_test == 2
    assert found.names == sorted(parts[1]) + sorted(parts[0])


def test_folders_may_be_called_otherwise_than_their_classes(read):
    files = {name.replace("/a/", "/x1/"): content for name, content in FILES.items()}
    found = read(files, "top", names={"x1": "b", "b": "a"})
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.names[0] == "top/b/1_b.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top/c/1.png": png(1)}, r"top/c/1\.png is of c, which is no class: add it to `classes`"),
        ({"top/1.png": png(1)}, r"top/1\.png is in no folder of a class: move it"),
        ({"top/a/x.png": b"none"}, r"a picture cannot be read: top/a/x\.png \(.*not an image"),
        (
            {f"top/a/x{n}.png": png(1)[:60] for n in range(7)},
            r"7 pictures cannot be read: .*x0\.png \(.*and 2 more: repair or remove them",
        ),
    ],
    ids=["unknown class", "no class", "no picture", "cut off"],
)
def test_what_does_not_fit_is_named_with_the_way_out(read, changes, message):
    with pytest.raises(PipelineError, match=rf"all\.zip: {message}"):
        read(FILES | changes, "top")


def test_a_folder_that_is_not_there_is_named_with_those_that_are(read):
    with pytest.raises(PipelineError, match=r"no pictures in folder\.path tip, but in top"):
        read(FILES, "tip")


# Index

INDEX = "file,label,writer\n" + "".join(
    f"{name.removeprefix('top/')},{name[4]},{name[6]}\n" for name in reversed(FILES)
)
INDEXED = ("top", "labels.csv")


def test_an_index_tells_classes_and_groups(read):
    found = read(FILES | {"top/labels.csv": INDEX}, *INDEXED, group="writer")
    assert found.names == sorted(FILES)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.groups == ["1", "2", "1", "2"]


def test_an_index_may_leave_pictures_out_and_a_pattern_find_the_groups(read):
    some = "\n".join(INDEX.splitlines()[:3])
    found = read(FILES | {"top/labels.csv": some}, *INDEXED, group=r"(\d)_")
    assert found.names == sorted(FILES)[2:]
    assert found.groups == ["1", "2"]


@pytest.mark.parametrize(
    ("index", "group", "message"),
    [
        (None, None, r"the index top/labels\.csv cannot be read"),
        (b"\xff\xfe", None, r"no CSV in UTF-8"),
        (INDEX.replace("label", "kind"), None, "has no column label, but file, kind, writer"),
        (INDEX.replace("writer", "who"), "writer", "has no column writer, but file, label, who"),
        (INDEX.replace("1_a", "9_a"), None, r"names top/a/9_a\.png, which is no picture there"),
        (INDEX.replace(",a,", ",x,"), None, "is of x, which is no class"),
        ("", None, "has no column file, but no rows"),
    ],
)
def test_an_index_that_does_not_fit_is_named(read, index, group, message):
    files = FILES if index is None else FILES | {"top/labels.csv": index}
    with pytest.raises(PipelineError, match=message):
        read(files, *INDEXED, group=group)


# Groups


@pytest.mark.parametrize("group", [r"(\d)_", r"\d_"])
def test_a_regular_expression_finds_the_group_in_the_name(read, group):
    found = read(FILES, "top", group=group)
    assert [each.rstrip("_") for each in found.groups] == ["1", "2", "1", "2"]


@pytest.mark.parametrize(
    ("group", "message"),
    [("(x", "is no regular expression"), ("_9", r"finds no group in top/a/1_a\.png")],
)
def test_a_regular_expression_that_does_not_fit_is_named(read, group, message):
    with pytest.raises(PipelineError, match=rf"data\.split\.group .*{message}"):
        read(FILES, "top", group=group)
