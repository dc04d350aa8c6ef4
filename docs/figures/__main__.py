"""Writes the tables of the docs: `make figures`, or `python -m docs.figures`.

Those that code, `conf/` and committed reports decide are made anew. Those that were measured stay
as they were recorded; of the workspace's own results `--record` keeps one anew, benchmarks take
`--record` themselves.
"""

from __future__ import annotations

import argparse

from docs.figures import derived, recorded, tables


def main() -> None:
    """Writes JSON, and from it Markdown."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures", description=__doc__)
    parser.add_argument(
        "--record",
        action="append",
        default=[],
        choices=list(recorded.TABLES),
        help="what the last `dvc repro` or search found; may be repeated",
    )
    for name in parser.parse_args().record:
        tables.write(name, recorded.TABLES[name]())
    for name, derive in derived.TABLES.items():
        tables.write(name, derive())
    for document in tables.documents():
        text = document.read_text()
        if (new := tables.rendered(text)) != text:
            document.write_text(new)


if __name__ == "__main__":
    main()
