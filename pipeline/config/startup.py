"""How our programs start."""

import atexit
import gc


def collect_rarely() -> None:
    """Make garbage collection rare, and skip the one at exit; for a program, not for a library.

    Importing TensorFlow or MLflow makes a million objects that stay. Collecting among them takes
    up to a quarter of the import's time, and at exit up to a second.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
