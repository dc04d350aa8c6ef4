"""Tables of the docs: JSON here, Markdown from `<!-- table: NAME -->` to `<!-- /table -->`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """Cells as they are shown, in Markdown.

    `command` makes them, or is a sentence that says why none does; `machine` is the one that they
    were measured on, empty if any gives the same.
    """

    command: str
    machine: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table, and below it where its figures come from, if they were measured."""
        head, *rows = (
            f"| {' | '.join(map(_cell, line))} |\n" for line in (self.columns, *self.rows)
        )
        table = "".join((head, f"|{'---|' * len(self.columns)}\n", *rows))
        if not self.machine:
            return table
        origin = self.command if self.command.endswith(".") else f"`{self.command}`,"
        return f"{table}\n{origin} {self.machine}.\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def path(name: str) -> Path:
    """Where the table of that name is kept."""
    return FOLDER / f"{name}.json"


def read(name: str) -> Table:
    """The table of that name as it was recorded."""
    return Table(**json.loads(path(name).read_bytes()))


def write(name: str, table: Table) -> None:
    """Records the table under that name; a row is a line of the file."""
    kept = asdict(table)
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in kept.pop("rows"))
    head = "".join(
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},\n"
        for key, value in kept.items()
    )
    path(name).write_text(f'{{\n{head}  "rows": [\n{rows}\n  ]\n}}\n')


def documents() -> list[Path]:
    """Every Markdown file that may have tables."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def rendered(text: str) -> str:
    """The text of a document with every table as it was recorded."""
    return PLACE.sub(lambda found: f"{found[1]}\n{read(found[2]).markdown()}\n{found[3]}", text)
