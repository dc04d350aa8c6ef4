"""Tables of metrics, for the terminal and for pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.evaluation import significance

P = "p\n(Holm)"  # corrected for the number of tests, wherever it is shown
# Column titles: short for the terminal, long for the page.
COLUMNS = {
    "run": "run",
    "name": "name",
    "val %": "validation accuracy %",
    "test % (95 %)": "test accuracy % (95 % interval)",
    "loss": "test loss",
    "ECE %": "calibration error %",
    "min\nrecall %": "lowest recall %",
    "params": "parameters",
    "size": "size",
    P: "p against the best (Holm)",
}
# Left out of a narrow terminal, the highest first: `size` follows from `params`.
_SPARE = {"size": 4, "loss": 3, "params": 2, "ECE %": 1}
_UNBOUNDED = 1000  # characters: where no terminal sets a limit
_GAP = 2
_NAME = 40  # characters: a sweep of two settings fits; a longer name may be folded


def rows(comparison: dict[str, Any]) -> dict[int, list[str]]:
    """Return each run's cells, one for each of `COLUMNS`; p is corrected for the number of runs."""
    runs = {int(run): metrics for run, metrics in comparison["runs"].items()}
    others = [run for run in runs if run != comparison["best"]]
    corrected = significance.holm([runs[run]["mcnemar_p"] for run in others])
    p_values = dict(zip(others, map(p_value, corrected), strict=True))
    return {
        run: [*cells(metrics).values(), p_values.get(run, "best")] for run, metrics in runs.items()
    }


def cells(metrics: dict[str, Any]) -> dict[str, str]:
    """Return a model's cells, under those of `COLUMNS` that concern it alone."""
    low, high = metrics["wilson"]
    return {
        "run": str(metrics["run"]),
        "name": metrics["name"],
        "val %": hundredths(metrics["val_accuracy"]),
        "test % (95 %)": f"{hundredths(metrics['test_accuracy'])} "
        f"({hundredths(low)}\N{EN DASH}{hundredths(high)})",
        "loss": f"{metrics['test_loss']:.4f}",
        "ECE %": hundredths(metrics["ece"]),
        "min\nrecall %": hundredths(metrics["min_recall"]),
        "params": f"{metrics['parameters']:,}",
        "size": size(metrics["size_bytes"]),
    }


def show(comparison: dict[str, Any]) -> None:
    """Print a row per run, the best one bold; a narrow terminal lacks what the page has too."""
    found = rows(comparison)
    names = [f"{run} {name}" for run, name, *_ in found.values()]
    titles = list(COLUMNS)
    columns = [
        Column(
            titles[place], [cells[place] for cells in found.values()], _SPARE.get(titles[place], 0)
        )
        for place in range(2, len(titles))
    ]
    styles = ["bold green" if run == comparison["best"] else "" for run in found]
    if left_out := show_named(names, columns, styles, title="run"):
        print(f"({left_out} more in a wider terminal)")


def show_precisions(comparison: dict[str, Any], timings: dict[str, dict[str, float]]) -> None:
    """Print a row per run and precision; `timings` are by run, as in `paths.TIMINGS`."""
    found = [
        (run, precision, metrics, timings.get(run, {}))
        for run, of_run in comparison["runs"].items()
        for precision, metrics in of_run.get("by_precision", {}).items()
    ]
    if not found:
        return
    single = [
        times.get("latency_ms_p50" if precision == "float32" else f"{precision}_latency_ms_p50")
        for _, precision, _, times in found
    ]
    columns = [
        Column("test %", [hundredths(metrics["test_accuracy"]) for _, _, metrics, _ in found]),
        Column("ECE %", [hundredths(metrics["ece"]) for _, _, metrics, _ in found]),
        Column("size", [size(metrics["size_bytes"]) for _, _, metrics, _ in found]),
        Column("ms per image", ["" if ms is None else f"{ms:.3f}" for ms in single]),
    ]
    names = [f"{run} {precision}" for run, precision, _, _ in found]
    show_named(names, columns, [""] * len(found), title="\nrun")


def room() -> int:
    """Return how wide a table may be: the terminal's columns; without a terminal as it needs."""
    console = Console()
    return console.width if console.is_terminal else _UNBOUNDED


@dataclass(frozen=True)
class Column:
    """Cells under a title. Without room the column with the highest `spare` goes first; 0 stays."""

    title: str
    cells: Sequence[str]
    spare: int = 0

    @property
    def width(self) -> int:
        """Characters of the longest cell or the title, and of the gap before it."""
        return max(map(len, (*self.title.split("\n"), *self.cells))) + _GAP


def show_named(
    names: Sequence[str], columns: Sequence[Column], styles: Sequence[str], title: str = "name"
) -> int:
    """Print a row per name; return how many columns were left out for lack of room.

    A long name is folded into more lines, never cut off.
    """
    width, kept = room(), list(columns)
    least = min(_NAME, max(map(len, names)))
    while sum(column.width for column in kept) > width - least and any(c.spare for c in kept):
        kept.remove(max(kept, key=lambda column: column.spare))
    result = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
    result.add_column(title, vertical="bottom", overflow="fold")
    for column in kept:  # whose cells keep their line breaks: only names get others
        result.add_column(column.title, justify="right", vertical="bottom", no_wrap=True)
    for *texts, style in zip(names, *(column.cells for column in kept), styles, strict=True):
        result.add_row(*map(Text, texts), style=style)
    width = max(width, least + sum(column.width for column in kept))
    Console(highlight=False, width=width).print(result)
    return len(columns) - len(kept)


def hundredths(share: float) -> str:
    """Return a share in per cent, without the sign."""
    return f"{share * 100:.2f}"


def size(number: int) -> str:
    """Return bytes in kB or MB."""
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"


def p_value(p: float) -> str:
    """Return a p value with its significant digits."""
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def equals(p: float) -> str:
    """Return a p value as it follows the word p."""
    value = p_value(p)
    return value if value.startswith("<") else f"= {value}"
