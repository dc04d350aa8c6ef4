"""What a benchmark found: printed, and with `--record` kept for the docs."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from docs.tools import recorded


def show(table: Table, name: str, command: str, width: int) -> None:
    """Prints the table, in a file or a pipe as wide as said.

    `name`: under which `docs/tables` keeps it if the command ends in `--record`.
    """
    Console(width=None if sys.stdout.isatty() else width).print(table)
    if "--record" in sys.argv[1:]:
        recorded.record(name, command, table)
