"""How our programs start."""

import atexit
import gc
import locale
import logging
import os
import sys


def start_program() -> None:
    """Set up this process as a program of ours; call it from programs, not from libraries."""
    _use_utf8()
    _collect_rarely()
    # Its remarks on a home that cannot be written to, once for each stage.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding.

    Our files, our output and what Git prints are UTF-8 (PEP 540). Child processes inherit it.
    """
    if not sys.flags.utf8_mode and locale.getencoding().lower() != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  ourselves


def _collect_rarely() -> None:
    """Make garbage collection rare, and skip the one at exit.

    Importing TensorFlow or MLflow makes a million objects that stay. Collecting among them takes
    up to a quarter of the import's time, and at exit up to a second.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
