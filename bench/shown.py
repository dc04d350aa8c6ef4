"""Print the table of a benchmark; with `--record`, keep it for the docs."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from docs.tools import recorded


def show(table: Table, name: str, command: str, width: int) -> None:
    """Print the table; record it under `name` if the command line has `--record`.

    `width`: columns, if the output is no terminal.
    """
    Console(width=None if sys.stdout.isatty() else width).print(table)
    if "--record" in sys.argv[1:]:
        recorded.record(name, command, table)
