"""Tables of the documents: JSON in docs/tables, Markdown between two markers.

The Markdown stands from `<!-- table: NAME -->` to `<!-- /table -->`.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tables"

PLACE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """Cells as Markdown shows them.

    `command` is the command that makes the table, or a sentence that says why there is none.
    `machine` is the machine that was measured, empty if every machine gives the same table.
    """

    command: str
    machine: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table, and below a measured one its command and machine."""
        lines = [[cell.replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows)]
        head, *rows = (f"| {' | '.join(line)} |\n" for line in lines)
        table = "".join((head, f"|{'---|' * len(self.columns)}\n", *rows))
        if not self.machine:
            return table
        origin = self.command if self.command.endswith(".") else f"`{self.command}`,"
        return f"{table}\n{origin} {self.machine}.\n"


def read(name: str) -> Table:
    """Return the table of that name as it was recorded."""
    return Table(**json.loads((FOLDER / f"{name}.json").read_bytes()))


def write(name: str, table: Table) -> None:
    """Record the table under that name, a row on each line of the file."""
    fields = asdict(table)
    rows = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in fields.pop("rows"))
    head = "".join(
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},\n"
        for key, value in fields.items()
    )
    (FOLDER / f"{name}.json").write_text(f'{{\n{head}  "rows": [\n{rows}\n  ]\n}}\n')


def documents() -> list[Path]:
    """Return every Markdown file that may have tables."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def rendered(text: str) -> str:
    """Return a document's text with every table as it was recorded."""
    return PLACE.sub(lambda found: f"{found[1]}\n{read(found[2]).markdown()}\n{found[3]}", text)
