import hashlib
import os
import zipfile

import pytest

from pipeline.archives.packing import pack
from pipeline.config import PipelineError

FILES = {"b/2.png": b"two", "a/1.png": b"one", "labels.csv": b"file,label\n"}


def written(folder, files, date):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o600)
        os.utime(path, (date, date))
    return folder


def test_equal_files_give_equal_bytes_whenever_and_in_whatever_order_they_came(tmp_path):
    first = written(tmp_path / "first", FILES, 10**9)
    other = written(tmp_path / "other", dict(reversed(FILES.items())), 1.5e9)
    hidden = {".git/a.png": b"", "__MACOSX/a.png": b"", "a/Thumbs.db": b"", "a/.DS_Store": b""}
    written(other, hidden, 1e9)
    for folder in (first, other):
        pack(folder, tmp_path / f"{folder.name}.zip")
    packed = [(tmp_path / f"{name}.zip").read_bytes() for name in ("first", "other")]
    assert packed[0] == packed[1]
    with zipfile.ZipFile(tmp_path / "first.zip") as archive:
        assert archive.namelist() == sorted(FILES)
        assert {name: archive.read(name) for name in FILES} == FILES
    digest = hashlib.sha256(packed[0]).hexdigest()
    assert digest.startswith("e46f86cd"), "users' conf/data files name it"


def test_a_name_that_is_no_text_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    with open(os.fsencode(tmp_path / "in") + b"/\xff.png", "wb"):  # noqa: PTH123  bytes
        pass
    with pytest.raises(PipelineError, match=r"\\xff\.png is no UTF-8: rename"):
        pack(tmp_path / "in", tmp_path / "out.zip")
