"""Where answers go: a table or JSON on the terminal, or a file that a later run continues."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from serve.client.service import Answer, ClientError

# Of a CSV or Parquet file; JSON lines have all of an answer.
COLUMNS = {
    **{"file": "string", "prediction": "int64", "confidence": "float64", "uncertain": "bool"},
    **{"digit_likelihood": "float64", "not_digit": "bool", "model_version": "string"},
    **{"request_id": "string", "detail": "string"},
}


class Terminal:
    """A line for each picture on standard output: of a table, or JSON."""

    def __init__(self, width: int, labels: Sequence[int | str], *, as_json: bool) -> None:
        self.done: set[str] = set()  # names that have their answer from before
        self._width, self._json = width, as_json
        self._title = "digit" if list(labels) == list(range(10)) else "class"
        self._label = max(len(self._title), *(len(str(label)) for label in labels))
        if not as_json:
            print(f"{'picture':<{width}}  {self._title:>{self._label}}  confidence")

    def add(self, name: str, answer: Answer) -> None:
        """Print the line."""
        line = json.dumps({"file": name, **answer}) if self._json else self._row(name, answer)
        print(line, flush=True)

    def close(self) -> None:
        """Do nothing."""

    def _row(self, name: str, answer: Answer) -> str:
        if "prediction" not in answer:
            return f"{name:<{self._width}}  {'-':>{self._label}}  {answer['detail']}"
        # A service of an earlier version returns no digit likelihood (out-of-distribution score).
        odd = "not a digit?" if self._title == "digit" else "none of them?"
        doubts = {"unsure": answer["uncertain"], odd: answer.get("not_digit")}
        said = "".join(f"  {doubt}" for doubt, there in doubts.items() if there)
        sure = answer["confidence"]
        shown = "> 99.9%" if sure > 0.999 else f"{sure:.1%}"
        return f"{name:<{self._width}}  {answer['prediction']:>{self._label}}  {shown:>10}{said}"


class Lines:
    """A file of lines, CSV or JSON: each is whole once `add` returns."""

    def __init__(self, path: Path) -> None:
        self._csv = path.suffix == ".csv"
        content = path.read_bytes() if path.exists() else b""
        known = content[: content.rfind(b"\n") + 1]  # a killed run may leave a part of a line
        try:
            if content and not known:  # it may be anything
                raise ValueError
            self.done = {row["file"] for row in self._read(known.decode())}
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(f"{path} is no file of results: name another") from error
        self._file = path.open("ab")
        self._file.truncate(len(known))
        if self._csv and not known:
            self._write(dict(zip(COLUMNS, COLUMNS, strict=True)))

    def _read(self, text: str) -> list[Answer]:
        if self._csv:
            reader = csv.DictReader(io.StringIO(text, newline=""))
            if text and reader.fieldnames != list(COLUMNS):
                raise ValueError
            return list(reader)
        return [json.loads(line) for line in text.splitlines()]

    def _write(self, row: Answer) -> None:
        if self._csv:
            text = io.StringIO(newline="")
            csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n").writerow(row)
            line = text.getvalue()
        else:
            line = json.dumps(row) + "\n"
        self._file.write(line.encode())
        self._file.flush()

    def add(self, name: str, answer: Answer) -> None:
        """Write the line."""
        self._write({"file": name, **answer})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Parquet:
    """A Parquet file, written when all is there; until then, JSON lines lie beside it."""

    def __init__(self, path: Path, labels: Sequence[int | str]) -> None:
        text = any(isinstance(label, str) for label in labels)
        self._columns = COLUMNS | ({"prediction": "string"} if text else {})
        self._path, self._partial = path, path.with_name(f"{path.name}.jsonl")
        import pyarrow.parquet  # 0.3 s

        self._arrow, self._rows = pyarrow, []
        if path.exists():
            try:
                with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
                    table = pyarrow.parquet.read_table(file, columns=list(COLUMNS))
                self._rows = table.to_pylist()
            except pyarrow.ArrowException as error:
                raise ClientError(f"{path} is no file of results: name another") from error
        self._lines = Lines(self._partial)
        self.done = self._lines.done | {row["file"] for row in self._rows}

    def add(self, name: str, answer: Answer) -> None:
        """Write a line of JSON."""
        self._lines.add(name, answer)

    def close(self) -> None:
        """Write the Parquet file from all lines."""
        self._lines.close()
        schema = self._arrow.schema(list(self._columns.items()))
        rows = self._rows + list(map(json.loads, self._partial.read_text().splitlines()))
        aside = self._path.with_name(f"{self._path.name}.aside")
        with aside.open("wb") as file:
            self._arrow.parquet.write_table(self._arrow.Table.from_pylist(rows, schema), file)
        aside.replace(self._path)
        self._partial.unlink()


Results = Terminal | Lines | Parquet


def to_file(path: Path, labels: Sequence[int | str]) -> Results:
    """Return the results that go to a file, by its suffix; may raise ClientError.

    `labels`: what a prediction may be.
    """
    try:
        if path.suffix in (".csv", ".jsonl"):
            return Lines(path)
        if path.suffix == ".parquet":
            return Parquet(path, labels)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error
    raise ClientError(f"{path}: the name must end in .csv, .jsonl or .parquet")
