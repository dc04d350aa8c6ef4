"""Theme of plots and pages: light and dark colours, matplotlib's style, and saving a plot.

Plots are drawn in the light colours. A PNG keeps them, an SVG follows the reader's preference.
"""

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from pipeline.config.data_schema import Preparation
from pipeline.storage.files import replacing

COLOURS = {
    "page": ("#f5f6f8", "#0e1116"),
    "surface": ("#ffffff", "#171b22"),
    "ink": ("#1b2430", "#e7ebf0"),
    "muted": ("#586474", "#9ba7b6"),
    "line": ("#dce1e8", "#323b47"),
    "wrong": ("#c2410c", "#fb923c"),
    # One per run, the same in every page and plot; colour-blind readers can tell them apart.
    "run-1": ("#2f77e6", "#4a9bff"),
    "run-2": ("#c47200", "#f5b841"),
    "run-3": ("#0a6b4a", "#86ecb8"),
    "run-4": ("#611e8f", "#a275b2"),
    "run-5": ("#e4547d", "#e34e5e"),
    "run-6": ("#2b333d", "#c1c9de"),
}
INK, MUTED, LINE, SURFACE, WRONG = (
    COLOURS[name][0] for name in ("ink", "muted", "line", "surface", "wrong")
)
_RUNS = [name for name in COLOURS if name.startswith("run-")]

# Any: matplotlib types the keys as a list of all their names.
DIGIT = Preparation.digit.value

STYLE: dict[Any, Any] = {
    "figure.facecolor": SURFACE,
    "figure.constrained_layout.use": True,
    "axes.facecolor": SURFACE,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "font.size": 9,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text as text: small, and in the page's own font
    "svg.hashsalt": "digits",  # ids that are the same each time
}
_DPI = 160


def colour(number: int) -> str:
    """Return the colour of run `number`, by day."""
    return COLOURS[_name(number)][0]


def _name(number: int) -> str:
    return _RUNS[(number - 1) % len(_RUNS)]


def _is_pale(number: int) -> bool:
    """Whether a lower number has this colour in full: there are half as many as models."""
    return (number - 1) % (2 * len(_RUNS)) >= len(_RUNS)


def line_style(number: int) -> dict[str, Any]:
    """Return how matplotlib draws run `number`: six colours, then the same six pale."""
    return {"color": colour(number), "alpha": 0.5 if _is_pale(number) else 1.0}


def noun(classes: Sequence[str | int], preparation: str) -> str:
    """Return what a class is called: a digit if they are those of MNIST, prepared as its are."""
    digits = preparation == DIGIT and [str(name) for name in classes] == list("0123456789")
    return "digit" if digits else "class"


def noun_of(model: Mapping[str, Any]) -> str:
    """Return what a class is called in the model with this `model.json`."""
    return noun(model["classes"], model["input"].get("preparation", DIGIT))


def greys(noun: str) -> str:
    """Return the colour map of grey images: digits are bright on dark, shown dark as on paper."""
    return "gray_r" if noun == "digit" else "gray"


def css_colour(number: int) -> str:
    """Return the same colour in CSS."""
    full = f"var(--{_name(number)})"
    return f"color-mix(in srgb, {full} 50%, var(--surface))" if _is_pale(number) else full


def css() -> str:
    """Return the colours as CSS properties that follow the reader's colour scheme."""
    day, night = ("".join(f"--{name}:{c[i]};" for name, c in COLOURS.items()) for i in (0, 1))
    return f":root{{{day}}}@media (prefers-color-scheme:dark){{:root{{{night}}}}}"


def save(figure: Figure, *targets: Path) -> None:
    """Write the figure as each of `targets`, PNG or SVG: the same bytes for the same figure."""
    for path in targets:
        with replacing(path) as temporary:
            if path.suffix == ".svg":
                temporary.write_text(svg(figure))
            else:
                figure.savefig(temporary, format="png", dpi=_DPI, metadata={"Software": None})


def svg(figure: Figure) -> str:
    """Return the figure as SVG with `css()` in place of fixed colours."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE), StringIO() as file:
        figure.savefig(file, format="svg", metadata=nothing)
        drawing = file.getvalue()
    for name, (day, _) in COLOURS.items():
        drawing = drawing.replace(day, f"var(--{name})")
    drawing = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", drawing)
    return drawing.replace("<defs>", f"<style>{css()}</style><defs>", 1)


def templates(*folders: Path) -> Environment:
    """Return the templates of folders; HTML is escaped, a missing variable is an error."""
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=select_autoescape(("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
