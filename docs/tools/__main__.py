"""Write what the documents take from code: `make tables`, or `python -m docs.tools`.

This renews the tables that code, `conf/` and the committed reports decide, and the OpenAPI
document. Measured tables stay as they were recorded: `--record` renews one from the last
`dvc repro`, and the benchmarks have a `--record` of their own.
"""

import argparse

from docs.tools import derived, recorded, tables


def main() -> None:
    """Write the tables as JSON, put them into the documents, and write the OpenAPI document."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.tools", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--record",
        action="append",
        default=[],
        choices=list(recorded.TABLES),
        help="renew this measured table, of the last `dvc repro`; may be repeated",
    )
    for name in parser.parse_args().record:
        tables.write(name, recorded.TABLES[name]())
    for name, derive in derived.TABLES.items():
        tables.write(name, derive())
    for document in tables.documents():
        text = document.read_text()
        if (new := tables.rendered(text)) != text:
            document.write_text(new)
    (tables.ROOT / "docs" / "openapi.json").write_text(derived.openapi())


if __name__ == "__main__":
    main()
