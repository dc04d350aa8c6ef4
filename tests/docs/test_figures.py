"""Figures in the docs: each table of them is recorded, or made anew from what decides it."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from support.documents import NAMES, ROOT, document, documents

from bench import load, serve
from docs.figures import derived, recorded, settings, tables

PLACES = {
    name: found
    for name in NAMES
    if (found := [match[1] for match in tables.PLACE.findall(document(name).text)])
}
USED = {table for found in PLACES.values() for table in found}
# A number with its unit, alone in a cell.
_FIGURE = re.compile(
    r"[<>~≈+\u2212-]?\s?\d[\d,.]*\s?(%|‰|ns|µs|us|ms|s|min|h|B|kB|KB|MB|GB|TB|MiB|GiB|points)?"
)


@pytest.mark.parametrize("name", PLACES)
def test_tables_are_as_they_were_recorded(name):
    text = document(name).text
    assert text == tables.rendered(text), "make figures"


def test_every_recorded_table_is_shown():
    recorded_names = {path.stem for path in tables.FOLDER.glob("*.json")}
    assert recorded_names - {"versions"} <= USED
    assert recorded_names >= USED


def test_a_recorded_table_says_where_it_comes_from():
    for name in USED:
        table = tables.read(name)
        assert table.command
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert bool(table.machine) == (name not in derived.TABLES)


def test_it_is_said_how_a_measured_table_is_recorded():
    told = document("CONTRIBUTING.md").under("Documents")
    measured = {name for name in USED if tables.read(name).machine}
    assert {name for name in measured if f"`{name}`" not in told} == set()


@pytest.mark.parametrize("name", sorted(derived.TABLES.keys() - {"layers"}))
def test_a_table_is_what_code_and_settings_say(name):
    assert tables.read(name) == derived.TABLES[name](), "make figures"


def test_a_benchmark_of_the_service_is_what_the_docs_and_their_tables_ask_for(
    tmp_path, monkeypatch
):
    found = {name: [load.Result(9, 100 + place, 1, 2, 0)] for place, name in enumerate(serve.LOADS)}
    servers = {server: 1.0 for server, *_ in serve.LOADS.values()}
    columns = tables.read("serving").columns
    shutil.copytree(tables.FOLDER, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    recorded.record("serving", "make bench-serve", serve.speeds(found, servers, servers))
    assert tables.read("serving").columns == columns
    measured = dict(derived.performance().rows)
    assert measured["pictures a second of one worker, as JSON"] == "103"
    assert measured["of an empty endpoint, as PNG"] == "1.06"
    recorded.record("watching", "make bench-serve", serve.costs(found))
    counters, everything = tables.read("watching").rows
    assert counters == ["counters", "1.0 %", "1.0 %, 1.0 %", "0"]
    assert everything == ["all that observes", "1.9 %", "1.9 %, 1.9 %", "0"]


# Settings that no table shows.
UNSHOWN = {
    "conf/config.yaml": "picks (`???`), and that Hydra makes no folder: but its defaults are shown",
    "conf/search.yaml": "the same",
    "conf/hydra/job_logging/stdout.yaml": "how a line is printed",
}
# Of a data set: hashes of published files and of exported feedback, its name, which heads the
# column, and that it has no feedback.
UNSHOWN_OF_DATA = re.compile(r"files\..*|name|feedback(\.sha256)?")


def settings_files():
    found = [ROOT / "params.yaml", *sorted((ROOT / "conf").rglob("*.yaml"))]
    return [file.relative_to(ROOT).as_posix() for file in found]


def leaves(name):
    """Each value of a file that a table must show."""
    for leaf in settings.leaves((ROOT / name).read_text()):
        if name in UNSHOWN:
            shown = re.fullmatch(r"defaults\.(run|search|data)", leaf.key)
        else:
            shown = not name.startswith("conf/data/") or not UNSHOWN_OF_DATA.fullmatch(leaf.key)
        if shown:
            yield leaf


@pytest.mark.parametrize("name", settings_files())
def test_another_value_of_a_setting_is_another_table(name, tmp_path, monkeypatch):
    """Whatever is changed in `conf/` or `params.yaml`, some table of the docs changes with it."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    text = (ROOT / name).read_text()
    before = [derive() for derive in settings.TABLES.values()]
    same = []
    for leaf in leaves(name):
        other = {"true": "false", "null": "9"}.get(leaf.value, f"9{leaf.value}")
        (tmp_path / name).write_text(text[: leaf.start] + other + text[leaf.end :])
        after = (derive() for derive in settings.TABLES.values())
        if all(table == other for table, other in zip(before, after, strict=True)):
            same.append(leaf.key)
    assert same == []


def test_the_layers_are_those_of_the_built_models(tensorflow):
    assert tables.read("layers") == derived.layers(), "make figures"


def test_the_table_in_the_readme_is_the_recorded_comparison():
    for cells in tables.read("runs").rows:
        run, name, *figures = cells
        line = rf"^ *{run}  {name} +{' +'.join(map(re.escape, figures))}$"
        assert re.search(line, document("README.md").text, re.MULTILINE), line


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_figures_is_a_recorded_one(name):
    """Or the line above it says why its numbers are no measurement: `<!-- no figures: WHY -->`."""
    each = document(name)
    inside = [
        (each.text[: match.start()].count("\n"), each.text[: match.end()].count("\n"))
        for match in tables.PLACE.finditer(each.text)
    ]
    unbacked = [
        rows
        for line, rows in each.tables()
        if not any(first <= line <= last for first, last in inside)
        and not re.search(
            r"<!-- no figures: \S.* -->", "\n".join(each.lines[max(line - 2, 0) : line])
        )
        and any(_FIGURE.fullmatch(cell) for row in rows[1:] for cell in row)
    ]
    assert unbacked == []


def test_a_benchmark_is_recorded_as_it_is_shown(tmp_path, monkeypatch):
    import rich.table

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


@pytest.mark.parametrize(
    ("name", "program"),
    [("pipeline-costs", "bench/__main__.py"), ("images", "bench/image.py")],
)
def test_a_benchmark_writes_the_rows_that_the_docs_have(name, program):
    source = (ROOT / program).read_text()
    for row, *_ in tables.read(name).rows:
        # How many epochs it had stands in its settings.
        assert re.sub(r"\d+ epochs", "{epochs} epochs", row) in source, row


def test_a_row_that_is_missing_is_named(monkeypatch):
    recorded_costs = tables.read("pipeline-costs")
    kept = [row for row in recorded_costs.rows if "nothing to do" not in row[0]]
    others = {"pipeline-costs": replace(recorded_costs, rows=kept)}
    read = tables.read
    monkeypatch.setattr(tables, "read", lambda name: others.get(name) or read(name))
    with pytest.raises(LookupError, match=r"pipeline-costs has no row .*nothing to do.*make bench"):
        derived.performance()


def test_times_of_a_rebuild_are_recorded(tmp_path, monkeypatch):
    found = {"train_seconds": 12.4, "latency_ms_p50": 0.017, "latency_ms_p99": 0.3}
    timings = tmp_path / "reports" / "timings.json"
    timings.parent.mkdir()
    timings.write_text(json.dumps({"1": {**found, "batch_256_ms_p50": 2.71}}))
    monkeypatch.setattr(recorded, "ROOT", tmp_path)
    assert recorded.times().rows == [["1", "12 s", "0.02 ms", "0.30 ms", "2.7 ms"]]


def test_trials_of_a_search_are_recorded(tmp_path, monkeypatch):
    trials = tmp_path / "reports" / "search" / "trials.csv"
    trials.parent.mkdir(parents=True)
    trials.write_text(
        "trial,state,val_loss,epochs,seconds,batch_size,model.dense_dropout\n"
        "0,complete,0.25,6,1,128,0.1\n1,pruned,0.1,3,1,64,0.2\n2,complete,0.125,6,1,256,0.3\n"
    )
    monkeypatch.setattr(recorded, "ROOT", tmp_path)
    table = recorded.search_trials()
    assert table.columns == ["trial", "val_loss", "batch size", "dense dropout"]
    assert table.rows == [["2", "0.1250", "256", "0.3"], ["0", "0.2500", "128", "0.1"]]


def test_every_document_that_has_tables_is_rendered():
    assert {ROOT / name for name in PLACES} <= set(tables.documents())
    assert {ROOT / each.name for each in documents() if "/" not in each.name} <= set(
        tables.documents()
    )
