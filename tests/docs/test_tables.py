"""The tables of the documents and the OpenAPI document: recorded, or derived from the code."""

import io
import json
import shutil
import zipfile

import pytest
import rich.table
from PIL import Image
from rich.console import Console
from support.documents import NAMES, ROOT, document

from bench import load, scenes, serve
from docs.tools import derived, recorded, tables

PLACES = {
    name: found
    for name in NAMES
    if (found := [match[1] for match in tables.PLACE.findall(document(name).text)])
}
USED = {table for found in PLACES.values() for table in found}


@pytest.mark.parametrize("name", PLACES)
def test_a_document_shows_its_tables_as_recorded(name):
    assert ROOT / name in tables.documents()
    text = document(name).text
    assert text == tables.rendered(text), "make tables"


def test_every_recorded_table_is_shown_and_says_where_it_comes_from():
    assert {path.stem for path in tables.FOLDER.glob("*.json")} == USED
    for name in USED:
        table = tables.read(name)
        assert table.command
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert bool(table.machine) == (name not in derived.TABLES)


def test_the_command_of_a_measured_table_is_documented():
    documented = document("CONTRIBUTING.md").text
    measured = {name for name in USED if tables.read(name).machine}
    assert {name for name in measured if f"`{name}`" not in documented} == set()


def test_the_openapi_document_is_that_of_the_service():
    assert (ROOT / "docs/openapi.json").read_text() == derived.openapi(), "make tables"


@pytest.mark.parametrize("name", derived.TABLES)
def test_a_table_is_what_code_and_settings_decide(name):
    assert tables.read(name) == derived.TABLES[name](), "make tables"


def test_a_benchmark_of_the_service_has_the_rows_and_columns_of_its_table(tmp_path, monkeypatch):
    shown = tables.read("serving")
    found = {name: [load.Result(9, 100 + place, 1, 2, 0)] for place, name in enumerate(serve.LOADS)}
    servers = {server: 1.0 for server, *_ in serve.LOADS.values()}
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    recorded.record("serving", "make bench-serve", serve.speeds(found, servers, servers))
    assert tables.read("serving").columns == shown.columns
    assert [row[0] for row in tables.read("serving").rows] == [row[0] for row in shown.rows]


def test_a_benchmark_is_recorded_as_it_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    shown = rich.table.Table("what", "measured", "limit")
    shown.add_row("a | b", "1 s", "2 s")
    recorded.record("made-up", "make bench", shown)
    table = tables.read("made-up")
    assert (table.columns, table.rows) == (["what", "measured"], [["a | b", "1 s"]])
    assert table.machine == recorded.machine()
    text = "before\n<!-- table: made-up -->\n<!-- /table -->\nafter\n"
    rendered = tables.rendered(text)
    assert "| a \\| b | 1 s |" in rendered
    assert rendered.startswith("before\n")
    assert rendered.endswith("after\n")
    assert tables.rendered(rendered) == rendered


def test_times_and_likelihood_of_a_rebuild_are_recorded(tmp_path, monkeypatch):
    found = {"train_seconds": 12.4, "latency_ms_p50": 0.017, "latency_ms_p99": 0.3}
    shutil.copytree(ROOT / "reports", tmp_path / "reports")
    timings = {"1": {**found, "batch_256_ms_p50": 2.71}}
    (tmp_path / "reports" / "timings.json").write_text(json.dumps(timings))
    (tmp_path / "reports" / "comparison.json").write_text('{"best": 1}')
    judged = {
        "nondigits": {"letters": {"fitted": False, "auroc": 0.9876, "refused": 0.875}},
        "refused_digits": {"test": 0.0123},
    }
    evaluated = tmp_path / "reports" / "evaluate" / "1"
    evaluated.mkdir(parents=True, exist_ok=True)
    (evaluated / "metrics.json").write_text(json.dumps({"likelihood": judged}))
    monkeypatch.setattr(recorded, "ROOT", tmp_path)
    assert recorded.times().rows == [["1", "12 s", "0.02 ms", "0.30 ms", "2.7 ms"]]
    letters, digits = recorded.likelihood().rows
    assert letters == ["letters (not fitted to)", "0.988", "87.5 %"]
    assert digits == ["test digits", "", "1.2 %"]


def test_handwritten_letters_and_digits_are_counted_as_flagged_or_refused(
    tmp_path, monkeypatch, bundle
):
    """Of the Latin letters those like digits are left out; a blank picture is refused."""
    blank = io.BytesIO()
    Image.new("L", (40, 40), 255).save(blank, "PNG")
    (tmp_path / "omniglot").mkdir()
    with zipfile.ZipFile(tmp_path / "omniglot" / "images_background_small2.zip", "w") as archive:
        for name in ("Greek/character01", "Latin/character01", "Latin/character02"):
            archive.writestr(f"all/{name}/1.png", blank.getvalue())
    (tmp_path / "field" / "mine" / "7").mkdir(parents=True)
    (tmp_path / "field" / "mine" / "7" / "1.png").write_bytes(blank.getvalue())
    monkeypatch.setattr(recorded, "HANDS", tmp_path)
    monkeypatch.setattr(recorded.paths, "CHAMPION", bundle)
    assert recorded.handwritten().rows == [
        ["letters: Greek", "1", "100.0 %", "100.0 %"],
        ["letters: Latin", "1", "100.0 %", "100.0 %"],
        ["digits: mine", "1", "100.0 %", "100.0 %"],
    ]


def test_the_scenes_fit_a_terminal_with_a_line_for_each():
    judged = scenes.Judged(0.98, 0.002, 0.014, 0.004)
    console = Console(width=80)
    with console.capture() as shown:
        console.print(scenes.table(dict.fromkeys(scenes.KINDS, judged)))
    lines = shown.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split("│")[1].strip() for line in lines if "98.0" in line] == [*scenes.KINDS]
