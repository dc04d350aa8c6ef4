"""The comparison in rows and columns, for terminal and page alike."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

# What a column is called where there is little room, and where there is more.
COLUMNS = {
    "run": "run",
    "name": "name",
    "val %": "validation accuracy %",
    "test % (95 %)": "test accuracy % (95 % interval)",
    "loss": "test loss",
    "ECE %": "calibration error %",
    "min\nrecall %": "lowest recall of a digit %",
    "params": "parameters",
    "size": "size",
    "p": "p against the best",
}
_LEFT = ("name",)
_WIDTH = 100


def rows(comparison: dict[str, Any]) -> dict[int, list[str]]:
    """Each run's cells, one for each of `COLUMNS`."""
    return {int(run): _cells(run, figures) for run, figures in comparison["runs"].items()}


def _cells(run: str, figures: dict[str, Any]) -> list[str]:
    low, high = figures["wilson"]
    p = figures["mcnemar_p"]
    return [
        run,
        figures["name"],
        hundredths(figures["val_accuracy"]),
        f"{hundredths(figures['test_accuracy'])} ({hundredths(low)}\N{EN DASH}{hundredths(high)})",
        f"{figures['test_loss']:.4f}",
        hundredths(figures["ece"]),
        hundredths(figures["min_recall"]),
        f"{figures['parameters']:,}",
        size(figures["size_bytes"]),
        "best" if p is None else p_value(p),
    ]


def table(comparison: dict[str, Any]) -> Table:
    """The runs side by side, in at most 100 columns; the best one bold."""
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        result.add_column(
            column, justify="left" if column in _LEFT else "right", vertical="bottom", no_wrap=True
        )
    for run, cells in rows(comparison).items():
        result.add_row(*cells, style="bold green" if run == comparison["best"] else None)
    return result


def show(comparison: dict[str, Any]) -> None:
    """Prints the table; in a file or a pipe plain, and as wide as it needs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    console.print(table(comparison))


def hundredths(share: float) -> str:
    """A share in per cent, without the sign."""
    return f"{share * 100:.2f}"


def size(number: int) -> str:
    """Bytes in kB or MB, as a person reads them."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"


def p_value(p: float) -> str:
    """A p value to as many digits as mean something."""
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
