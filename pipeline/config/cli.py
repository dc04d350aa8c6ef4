"""How our commands end: an error that the user can mend is one line."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from pipeline.config import PipelineError


def run(main: Callable[[list[str]], None]) -> None:
    """Gives `main` the arguments of the command line, and prints what it logs as it is."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        main(sys.argv[1:])
    except PipelineError as error:
        sys.exit(f"error: {error}")
