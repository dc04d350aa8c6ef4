import errno
import os
import zipfile
from pathlib import Path

import pytest
from support.bundles import picture

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


def packed(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def names_in(source):
    with pictures.opened(source) as (names, _):
        return names


def test_what_is_no_picture_by_its_name_is_left_out(tmp_path):
    wanted = ["0/a.PNG", "0/b.heic", "0/c", "0/d.webp"]
    others = [
        "predictions.parquet",
        "0/.DS_Store",
        "0/Thumbs.db",
        "0/e.txt",
        "labels.csv",
        "0/f.png.gz",
        "n.zip",
    ]
    others += ["__MACOSX/0/._a.png", ".git/a.png", "predictions.parquet"]
    found = packed(tmp_path / "a.zip", **dict.fromkeys([*others, *wanted], b""))
    assert names_in(found) == wanted
    with zipfile.ZipFile(found) as archive:
        archive.extractall(tmp_path / "folder")
    assert names_in(tmp_path / "folder") == wanted


def test_names_that_begin_with_a_dot_and_a_slash_are_names(tmp_path):
    found = packed(tmp_path / "a.zip", **{"./": b"", "./0/a.png": picture()})
    assert names_in(found) == ["./0/a.png"]
    assert pictures.labels(["./0/a.png", "./1/b.png"], CLASSES) == [0, 1]


def test_a_folder_that_is_a_link_is_read(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(picture())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "2").symlink_to(tmp_path / "elsewhere")
    assert names_in(tmp_path / "mine") == ["2/a.png"]


def test_links_in_a_circle_are_named(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "again").symlink_to(tmp_path)
    with pytest.raises(PipelineError, match="link"):
        names_in(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "0").mkdir()
    scan = os.scandir

    def denied(path):
        if str(path).endswith("0"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PipelineError, match=r"0: Permission denied"):
        names_in(tmp_path)


def test_a_name_cannot_send_codes_to_the_terminal():
    assert pictures.shown("a\x1b[2Jé.png") == r"a\x1b[2Jé.png"


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "0/../../a.png", "C:\\a.png", "..\\a.png"])
def test_a_name_outside_of_the_zip_is_refused(tmp_path, name):
    found = packed(tmp_path / "a.zip", **{"0/a.png": picture(), name: picture()})
    with pytest.raises(PipelineError, match=r"name outside .* zip the folder again"):
        names_in(found)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_BOMB_BYTES", 2**20)
    blank = packed(tmp_path / "a.zip", **{"0/a.png": bytes(2**20)})  # a thousandth, but not large
    assert names_in(blank) == ["0/a.png"]
    bomb = packed(tmp_path / "a.zip", **{"0/a.png": bytes(2**20 + 1)})
    with pytest.raises(PipelineError, match=r"zip bomb does: unpack it yourself"):
        names_in(bomb)
    many = packed(tmp_path / "a.zip", **{f"0/{n}.png": picture() for n in range(4000)})
    assert sum(len(name) for name in names_in(many)) > 0  # larger, but of pictures


def test_of_a_picture_in_a_zip_no_more_than_the_limit_is_unpacked(tmp_path):
    most = pictures.LIMITS.max_image_bytes
    found = packed(tmp_path / "a.zip", **{"a.png": bytes(most), "b.png": bytes(most + 1)})
    with pictures.opened(found) as (_, read):
        assert read("a.png") == bytes(most)
        assert read("b.png") == f"more than {most:,} bytes"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"no zip", "no sound zip"),
        (picture(), "no sound zip"),
        (b"PK\x05\x06" + bytes(18), "has no pictures"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(tmp_path, content, message):
    source = tmp_path / "a.zip"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(PipelineError, match=rf"a\.zip .*{message}"):
        names_in(source)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(PipelineError, match="has no pictures: name a folder"):
        names_in(tmp_path)


def test_a_zip_without_its_end_is_named(tmp_path):
    found = packed(tmp_path / "a.zip", **{"0/a.png": picture()})
    found.write_bytes(found.read_bytes()[:-30])
    with pytest.raises(PipelineError, match="no sound zip"):
        names_in(found)
