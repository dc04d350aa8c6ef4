"""A folder as one file: a zip whose bytes depend on nothing but the names and their contents."""

import zipfile
from pathlib import Path

from pipeline.archives import sources
from pipeline.config import PipelineError

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can tell
_MODE = 0o100644 << 16
_UNIX = 3


def pack(folder: Path, target: Path) -> None:
    """Write the files of a folder, sorted and not compressed; what is hidden stays out.

    It is a PipelineError if a file cannot be read or named.
    """
    names = sorted(
        Path(name).as_posix() for name in sources.files(folder) if sources.is_wanted(name)
    )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system, entry.external_attr = _UNIX, _MODE
            try:
                archive.writestr(entry, (folder / name).read_bytes())
            except UnicodeEncodeError:
                raise PipelineError(
                    f"{folder}: the name {sources.shown(name)} is no UTF-8: rename the file"
                ) from None
            except OSError as error:
                raise PipelineError(f"{folder / name}: {error.strerror}") from None
