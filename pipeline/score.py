"""Score a model on pictures of your own: `python -m pipeline.score FOLDER`.

A command, not a stage: it reads folders and zips as the service reads what it receives. Of
pictures in one folder per class it reports how well; of others it writes the predictions alone.
With `--explain` it shows how one picture is read, step by step.
"""

import argparse
import logging
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.archives.sources import shown
from pipeline.config import PipelineError, cli, paths
from pipeline.reports import html, tables
from pipeline.reports.tables import Column
from pipeline.scoring import explained, measures, page, pictures
from pipeline.scoring.scored import Scored, score, together
from pipeline.storage.files import replacing, write, write_json
from serve.models.predictor import BundleError, Predictor

logger = logging.getLogger(__name__)

OUT = Path("reports/score")
FORMATS = ("csv", "parquet")

_NAMED = 5  # refused pictures in the terminal
_WIDTH = 80  # characters of it


def main(arguments: list[str]) -> None:
    """Write predictions, and of labelled pictures metrics and a page; print the summary."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.score")
    parser.description = "Score a model on pictures of your own, read as the service reads them."
    meaning = (
        "folders or .zip files of pictures; in one folder per class (0 to 9) they are labelled"
    )
    parser.add_argument("sources", type=Path, nargs="*", metavar="FOLDER", help=meaning)
    one = "instead: a page that shows step by step how this one picture is read"
    parser.add_argument("--explain", type=Path, metavar="PICTURE", help=one)
    bundle = "the model's folder (default: %(default)s)"
    parser.add_argument("--bundle", type=Path, default=paths.CHAMPION, help=bundle)
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the predictions")
    given = parser.parse_args(arguments)
    if bool(given.sources) == bool(given.explain):
        parser.error("name folders or .zip files, or one picture with --explain")

    predictor = opened(given.bundle)
    about: dict[str, Any] = {
        "bundle": str(given.bundle),
        "command": shown(shlex.join(["python", "-m", "pipeline.score", *arguments])),
    }
    if given.explain:
        explain(given.explain, predictor, given.out, about)
        return
    named = pictures.named(given.sources)
    check_out(given.out)
    with ExitStack() as stack:
        # All are opened before the first is scored: a name that is wrong is said at once.
        inside = {
            name: stack.enter_context(pictures.opened(source)) for name, source in named.items()
        }
        sets = {name: score(*each, predictor) for name, each in inside.items()}
        scored = together(sets) if len(sets) > 1 else next(iter(sets.values()))
        written = write_predictions(given.out, scored.table, given.format)
        found = measures.measure(scored) if len(scored.places) else None
        if found:
            found |= {key: predictor.description.get(key) for key in ("run", "name", "sha256")}
            if len(sets) > 1:
                found["sets"] = {name: measures.row(each) for name, each in sets.items()}
            write_json(given.out / "metrics.json", found)
            about |= {
                "source": f"{len(sets)} sets" if len(sets) > 1 else shown(str(given.sources[0])),
                "likelihood": predictor.likelihood and float(predictor.likelihood.threshold),
            }
            write(given.out / "index.html", page.fill(scored, found, about))
            written = ["index.html", *written, "metrics.json"]
    show(scored, found)
    logger.info("\n%s: %s", given.out, ", ".join(written))


def explain(file: Path, predictor: Predictor, out: Path, about: dict[str, Any]) -> None:
    """Write the page on one picture, and print the answer and where the page is."""
    found = explained.answer(file, predictor)
    make(out)
    content = explained.fill(found, predictor, about | {"source": shown(str(file))})
    write(out / "explained.html", content)
    if isinstance(found["detail"], str):
        logger.info("refused: %s", found["detail"])
    else:
        share = tables.hundredths(found["confidence"])
        doubts = [flag for flag in ("uncertain", "not_digit") if found[flag]]
        logger.info("%s", ", ".join([f"read as {found['prediction']}, {share} %", *doubts]))
    logger.info("%s", out / "explained.html")


def opened(bundle: Path) -> Predictor:
    """Return the model of `bundle`, or raise a PipelineError."""
    remedy = "make repro makes the champion, --bundle names the folder of another model"
    if not (bundle / "model.json").is_file():
        raise PipelineError(f"{bundle} has no model: {remedy}")
    try:
        return Predictor(bundle)
    except BundleError as error:
        raise PipelineError(f"{error}: {remedy}") from error


def check_out(folder: Path) -> None:
    """Make the folder; refuse one with the files of something else, which would be replaced."""
    if not any((folder / f"predictions.{each}").exists() for each in FORMATS):
        for name in ("index.html", "metrics.json"):
            if (folder / name).exists():
                raise PipelineError(f"--out {folder} has another {name}: name another folder")
    make(folder)


def make(folder: Path) -> None:
    """Make the folder, or raise a PipelineError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PipelineError(f"--out {folder}: {error.strerror}: name another folder") from error


def write_predictions(folder: Path, table: pd.DataFrame, file_format: str) -> list[str]:
    """Write the table in place of what an earlier run left; return the name of the file."""
    for name in (*(f"predictions.{each}" for each in FORMATS), "metrics.json", "index.html"):
        (folder / name).unlink(missing_ok=True)
    with replacing(folder / f"predictions.{file_format}") as temporary:
        if file_format == "csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return [f"predictions.{file_format}"]


def show(scored: Scored, found: dict[str, Any] | None) -> None:
    """Print the summary in 80 columns."""
    table, lines = scored.table, {}
    refused = table[table["detail"].notna()]
    if found:
        low, high = map(tables.hundredths, found["wilson"])
        share, count = tables.hundredths(found["accuracy"]), f"{found['images']:,}"
        things = "digits" if scored.noun == "digit" else "pictures"
        told = (share, count, things, low, high)
        logger.info("%s %% of %s %s read right (95 %%: %s to %s)\n", *told)
        if "sets" in found:
            show_sets(found["sets"])
            logger.info("")
        show_classes(found, scored.noun)
        pairs = html.confused(found["confusion"])
        named = [f"{scored.classes[a]} as {scored.classes[b]} ({n:,})" for a, b, n in pairs]
        lines["misread"] = f"{found['errors']:,}, {found['flagged_errors']:,} of them flagged"
        lines["most often"] = ", ".join(named) or "none"
        lines["ECE"] = f"{tables.hundredths(found['ece'])} %"
    else:
        read = table["prediction"].value_counts().sort_index()
        logger.info("%s of %s pictures read", f"{read.sum():,}", f"{len(table):,}")
        lines = {f"read as {name}": f"{number:,}" for name, number in read.items()}
    counts = {flag: table[flag].sum() for flag in ("uncertain", "not_digit")}
    counts["refused"] = len(refused)
    for name in counts:
        count = found[name] if found else counts[name]
        lines[name.replace("_d", " a d")] = f"{count:,}"
    if not found:
        no_digits = table["detail"].notna() | table["not_digit"].fillna(False)
        lines["no digit"] = f"{tables.hundredths(no_digits.mean())} % are refused or not a digit"
    if found and found["refused"]:
        as_wrong = tables.hundredths(found["accuracy_with_refused"])
        lines["refused"] += f", so {as_wrong} % right of all"
    if unlabelled := int(table["label"].isna().sum()):
        lines["no label"] = f"{unlabelled:,}: a folder named by its class labels a picture"
    logger.info("")
    for name, text in lines.items():
        logger.info("%-13s%s", name, text)
    for name, why in refused[["file", "detail"]].head(_NAMED).itertuples(index=False):
        line = f"  {name}: {why}"
        logger.info("%s", line if len(line) <= _WIDTH else f"  …{line[3 - _WIDTH :]}")
    if len(refused) > _NAMED:
        more = f"{len(refused) - _NAMED:,}"
        logger.info("  … and %s more: the column `detail` of the predictions", more)


def show_sets(sets: dict[str, dict[str, Any]]) -> None:
    """Print a row per set."""
    rows = list(sets.values())

    def cells(cell: Callable[[dict[str, Any]], str]) -> list[str]:
        return [cell(row) if row["images"] else "" for row in rows]

    columns = [
        Column("pictures", [f"{row['pictures']:,}" for row in rows]),
        Column("right %", cells(lambda row: tables.hundredths(row["accuracy"]))),
        Column("95 % interval", cells(lambda row: _interval(row["wilson"])), spare=1),
        Column("lowest\nrecall %", cells(_lowest)),
        Column("refused", [f"{row['refused']:,}" for row in rows]),
    ]
    tables.show_named(list(sets), columns, [""] * len(sets), title="set")


def _lowest(row: dict[str, Any]) -> str:
    recall = tables.hundredths(row["worst_recall"])
    return recall if row["worst_class"] is None else f"{row['worst_class']}: {recall}"


def _interval(ends: Sequence[float]) -> str:
    return "\N{EN DASH}".join(map(tables.hundredths, ends))


def show_classes(found: dict[str, Any], noun: str) -> None:
    """Print a row per class."""
    rows = [place for place, share in enumerate(found["recall"]) if share is not None]
    columns = [
        Column("pictures", [f"{sum(found['confusion'][row]):,}" for row in rows]),
        Column("right", [f"{found['confusion'][row][row]:,}" for row in rows]),
        Column("right %", [tables.hundredths(found["recall"][row]) for row in rows]),
        Column("95 % interval", [_interval(found["recall_wilson"][row]) for row in rows]),
    ]
    least = min(found["recall"][row] for row in rows)
    styles = ["bold" if found["recall"][row] == least < 1 else "" for row in rows]
    tables.show_named([found["classes"][row] for row in rows], columns, styles, title=noun)


if __name__ == "__main__":
    cli.run(main)
