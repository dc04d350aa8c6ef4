import errno
import io
import os
import tarfile
import zipfile

import pytest
from support.bundles import picture

from pipeline.archives import sources
from pipeline.config import PipelineError

MOST = 5_000_000


def packed(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, **files):
    with tarfile.open(path, f"w:{path.suffix[1:] if path.suffix != '.tar' else ''}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def names_in(source):
    with sources.opened(source, MOST) as (names, _):
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
        archive.extractall(tmp_path / "folder")  # noqa: S202  our own
    assert names_in(tmp_path / "folder") == wanted


def test_names_that_begin_with_a_dot_and_a_slash_are_names(tmp_path):
    found = packed(tmp_path / "a.zip", **{"./": b"", "./0/a.png": picture()})
    assert names_in(found) == ["./0/a.png"]


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
    assert sources.shown("a\x1b[2Jé.png") == r"a\x1b[2Jé.png"


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "0/../../a.png", "C:\\a.png", "..\\a.png"])
def test_a_name_outside_of_the_zip_is_refused(tmp_path, name):
    found = packed(tmp_path / "a.zip", **{"0/a.png": picture(), name: picture()})
    with pytest.raises(PipelineError, match=r"name outside .* zip the folder again"):
        names_in(found)


def test_a_zip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_BOMB_BYTES", 2**20)
    blank = packed(tmp_path / "a.zip", **{"0/a.png": bytes(2**20)})  # a thousandth, but not large
    assert names_in(blank) == ["0/a.png"]
    bomb = packed(tmp_path / "a.zip", **{"0/a.png": bytes(2**20 + 1)})
    with pytest.raises(PipelineError, match=r"zip bomb does: unpack it yourself"):
        names_in(bomb)
    many = packed(tmp_path / "a.zip", **{f"0/{n}.png": picture() for n in range(4000)})
    assert sum(len(name) for name in names_in(many)) > 0  # larger, but of pictures


def test_of_a_picture_in_a_zip_no_more_than_the_limit_is_unpacked(tmp_path):
    found = packed(tmp_path / "a.zip", **{"a.png": bytes(MOST), "b.png": bytes(MOST + 1)})
    with sources.opened(found, MOST) as (_, read):
        assert read("a.png") == bytes(MOST)
        assert read("b.png") == f"more than {MOST:,} bytes"


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


# Tars


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_is_read_as_a_zip_is(tmp_path, ending):
    files = {"b/2.png": b"two", "a/1.png": b"one", "a/notes.txt": b"", "a/.hidden.png": b""}
    found = tarred(tmp_path / f"a.{ending}", **files)
    with sources.opened(found, MOST) as (names, read):
        assert names == ["a/1.png", "b/2.png"]
        assert [read(name) for name in names] == [b"one", b"two"]
        assert "not found" in read("c.png")
    with sources.opened(found, 2) as (_, read):
        assert read("a/1.png") == "more than 2 bytes"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, kind):
    found = tmp_path / "a.tar"
    with tarfile.open(found, "w") as archive:
        member = tarfile.TarInfo("b.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(PipelineError, match=r"a link or device, b\.png"):
        names_in(found)


def test_links_in_a_zip_are_refused(tmp_path):
    link = zipfile.ZipInfo("0/a.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(PipelineError, match=r"a link or device, 0/a\.png"):
        names_in(tmp_path / "a.zip")


@pytest.mark.parametrize("name", ["../a.png", "/a.png"])
def test_a_name_outside_of_the_tar_is_refused(tmp_path, name):
    with pytest.raises(PipelineError, match=r"name outside .* tar the folder again"):
        names_in(tarred(tmp_path / "a.tar.gz", **{name: picture()}))


def test_a_tar_bomb_is_refused_while_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_BOMB_BYTES", 2**20)
    with pytest.raises(PipelineError, match="bomb does: unpack it yourself"):
        names_in(tarred(tmp_path / "a.tar.gz", **{"a.png": bytes(2**22)}))


@pytest.mark.parametrize("content", [None, b"no tar", b"\x1f\x8b cut off"])
def test_a_tar_that_cannot_be_read_is_named(tmp_path, content):
    source = tmp_path / "a.tar.gz"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(PipelineError, match=r"a\.tar\.gz .*(does not exist|no sound tar)"):
        names_in(source)
