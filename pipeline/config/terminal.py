"""What a stage shows on a terminal, and what it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar(Progress):
    """A progress bar that vanishes at its end; without a terminal it draws nothing."""

    def __init__(self, title: str, total: int) -> None:
        console = Console(highlight=False)
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.add_task(title, total=total)

    def move(self, completed: int) -> None:
        """Show how much of `total` is completed."""
        self.update(self._task, completed=completed)

    def step(self) -> None:
        """Show one more as completed."""
        self.advance(self._task)


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what C++ code writes to standard error; Python's exceptions still show.

    TensorFlow's import, the LiteRT converter and each process's first LiteRT interpreter write
    there whatever the log level.
    """
    stderr = os.dup(2)
    with Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
