"""How our commands run: what they log is printed, and an error is one line."""

import logging
import sys
from collections.abc import Callable

from pipeline.config import PipelineError
from pipeline.config.startup import start_program


def run(main: Callable[[list[str]], None]) -> None:
    """Run `main` with the command line's arguments; print its log, and errors as one line."""
    start_program()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        main(sys.argv[1:])
    except PipelineError as error:
        sys.exit(f"error: {error}")
