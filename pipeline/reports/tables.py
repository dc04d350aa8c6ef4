"""Figures in rows and columns, for terminal and page alike."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

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
_UNBOUNDED = 1000  # characters: where no terminal sets a limit
_GAP = 2
_NAME = 28  # characters: a longer name may be folded


def rows(comparison: dict[str, Any]) -> dict[int, list[str]]:
    """Each run's cells, one for each of `COLUMNS`."""
    return {int(run): _cells(figures) for run, figures in comparison["runs"].items()}


def _cells(figures: dict[str, Any]) -> list[str]:
    p = figures["mcnemar_p"]
    return [*cells(figures).values(), "best" if p is None else p_value(p)]


def cells(figures: dict[str, Any]) -> dict[str, str]:
    """What an evaluation says of a run, under those of `COLUMNS` that concern it alone."""
    low, high = figures["wilson"]
    return {
        "run": str(figures["run"]),
        "name": figures["name"],
        "val %": hundredths(figures["val_accuracy"]),
        "test % (95 %)": f"{hundredths(figures['test_accuracy'])} "
        f"({hundredths(low)}\N{EN DASH}{hundredths(high)})",
        "loss": f"{figures['test_loss']:.4f}",
        "ECE %": hundredths(figures["ece"]),
        "min\nrecall %": hundredths(figures["min_recall"]),
        "params": f"{figures['parameters']:,}",
        "size": size(figures["size_bytes"]),
    }


def table(comparison: dict[str, Any]) -> Table:
    """The runs side by side, in at most 100 columns; the best one bold."""
    result = _empty(COLUMNS, _LEFT)
    for run, cells in rows(comparison).items():
        result.add_row(*cells, style="bold green" if run == comparison["best"] else None)
    return result


def show(comparison: dict[str, Any]) -> None:
    """Prints the table; in a file or a pipe plain, and as wide as it needs."""
    Console(highlight=False, width=room()).print(table(comparison))


def room() -> int:
    """How wide a table may be: the terminal's columns; in a file or a pipe what it needs."""
    console = Console()
    return console.width if console.is_terminal else _UNBOUNDED


@dataclass(frozen=True)
class Column:
    """Cells under a title. Where there is no room the most `spare` one goes first; 0 stays."""

    title: str
    cells: Sequence[str]
    spare: int = 0

    @property
    def width(self) -> int:
        """Characters of the longest cell or the title, and the gap before it."""
        return max(map(len, (self.title, *self.cells))) + _GAP


def fitting(names: Sequence[str], columns: Sequence[Column], room: int) -> list[Column]:
    """Those columns that have room beside the names, these folded if need be."""
    kept = list(columns)
    least = min(_NAME, _longest(names))
    while sum(column.width for column in kept) > room - least and any(c.spare for c in kept):
        kept.remove(max(kept, key=lambda column: column.spare))
    return kept


def show_named(
    names: Sequence[str], columns: Sequence[Column], styles: Sequence[str], room: int
) -> None:
    """Prints a line or more per name, in full: what is too long is folded, never cut off."""
    used = sum(column.width for column in columns)
    least = min(_NAME, _longest(names))
    width = min(_longest(names), max(room - used, least))
    result = _empty(("name", *(column.title for column in columns)), _LEFT)
    folded = [fold(name, width) for name in names]
    for *texts, style in zip(folded, *(column.cells for column in columns), styles, strict=True):
        result.add_row(*map(Text, texts), style=style)
    Console(highlight=False, width=max(room, used + width)).print(result)


def fold(name: str, width: int) -> str:
    """The name in lines of at most `width`, after hyphens if it has them; indented as it is."""
    bare = name.lstrip()
    indent = " " * (len(name) - len(bare))
    width -= len(indent)
    pieces = re.findall(rf"[^-]{{1,{width - 1}}}-|[^-]{{1,{width}}}|-", bare)
    lines = [""]
    for piece in pieces:
        if len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(indent + line for line in lines)


def _longest(names: Sequence[str]) -> int:
    return max(map(len, names))


def _empty(titles: Iterable[str], left: Container[str]) -> Table:
    """A table without lines, in which each cell keeps its line breaks and gets no others."""
    result = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    for title in titles:
        justify: Literal["left", "right"] = "left" if title in left else "right"
        result.add_column(title, justify=justify, vertical="bottom", no_wrap=True)
    return result


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


def equals(p: float) -> str:
    """A p value after the word p."""
    value = p_value(p)
    return value if value.startswith("<") else f"= {value}"
