"""Imports go one way: each folder imports only folders below it, and there are no circles."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
from grimp import Layer

ROOT = Path(__file__).parents[1]
STAGES = ["fetch", "preprocess", "likelihood", "train", "evaluate", "compare", "track"]
COMMANDS = ["register", "adopt", "compare_experiments", "exps", "feedback", "retrain", "score"]
# Top to bottom; names in one layer do not import each other.
PIPELINE = [
    Layer(*STAGES, *COMMANDS),
    Layer("sweep", "search", "new_data"),
    Layer("jobs"),
    Layer("registry", "ood", "scoring"),
    Layer("reports"),
    Layer("robustness", "training", "user_feedback"),
    Layer("evaluation", "fetching", "reading"),
    Layer("data", "archives"),
    Layer("storage"),
    Layer("config"),
]
SERVE = [
    Layer("__main__", "client"),
    Layer("processes"),
    Layer("app"),
    Layer("routes"),
    Layer("http"),
    Layer("prediction"),
    Layer("models", "decoding"),
    Layer("imaging", "telemetry"),
    Layer("settings"),
    Layer("sources"),
]
# What reads a picture, what predicts and explains, what identifies a model and what users reported:
# the pipeline trains on what the service sees, registers what it verifies, and scores within its
# limits.
SHARED_WITH_PIPELINE = {
    *("models.predictor", "models.drift_reference", "models.bundle_digest"),
    *("prediction.feedback_store", "prediction.explanation", "decoding.decode", "settings"),
}


def graph():
    return grimp.build_graph(
        "pipeline", "serve", "monitoring", exclude_type_checking_imports=True, cache_dir=None
    )


@pytest.fixture(scope="module")
def imports():
    return graph()


def upward(imports, package, layers):
    """The chains of imports that go up."""
    return imports.find_illegal_dependencies_for_layers(layers, containers={package})


def circle(imports):
    """A circle of imports, or nothing."""
    arrows = {m: imports.find_modules_directly_imported_by(m) for m in imports.modules}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize(("package", "layers"), [("pipeline", PIPELINE), ("serve", SERVE)])
def test_imports_go_down(imports, package, layers):
    assert upward(imports, package, layers) == set()


@pytest.mark.parametrize(("package", "layers"), [("pipeline", PIPELINE), ("serve", SERVE)])
def test_every_module_has_a_layer(imports, package, layers):
    named = {f"{package}.{name}" for layer in layers for name in layer.module_tails}
    assert imports.find_children(package) == named


def test_there_is_no_circle(imports):
    assert circle(imports) == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("pipeline.data.dataset", "pipeline.train"),
        ("pipeline.storage.files", "pipeline.reports.tables"),
        ("pipeline.evaluate", "pipeline.compare"),
        ("serve.telemetry.otlp", "serve.routes.health"),
        ("serve.imaging.normalise", "serve.decoding.decode"),
        ("serve.prediction.service", "serve.http.request_body"),
    ],
)
def test_an_upward_import_is_found(importer, imported):
    package = importer.partition(".")[0]
    changed = graph()
    changed.add_import(importer=importer, imported=imported)
    layers = {"pipeline": PIPELINE, "serve": SERVE}[package]
    assert any(
        importer in route.heads and imported in route.tails
        for each in upward(changed, package, layers)
        for route in each.routes
    )


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("pipeline.config", "pipeline.config.cli"),
        ("serve.http.schemas", "serve.http.request_body"),
        ("monitoring.drift.drift_tests", "monitoring.drift.report"),
    ],
)
def test_a_circle_is_found(importer, imported):
    changed = graph()
    assert changed.direct_import_exists(importer=imported, imported=importer)
    changed.add_import(importer=importer, imported=imported)
    assert {importer, imported} <= set(circle(changed))


def test_the_service_needs_nothing_of_the_pipeline(imports):
    assert imports.find_shortest_chains("serve", "pipeline", as_packages=True) == set()


def test_the_pipeline_uses_only_what_serves_the_model(imports):
    used = {
        imported.removeprefix("serve.")
        for module in imports.find_descendants("pipeline")
        for imported in imports.find_modules_directly_imported_by(module)
        if imported.startswith("serve.")
    }
    assert {name for name in used if not name.startswith("imaging.")} <= SHARED_WITH_PIPELINE


def test_nothing_needs_what_watches_it(imports):
    for package in ("pipeline", "serve"):
        assert imports.find_shortest_chains(package, "monitoring", as_packages=True) == set()


def test_one_module_reads_the_environment():
    reading = re.compile(r"os\.(getenv|environ\.get|environ\[[^]]*\](?! =))")
    files = [file for package in ("pipeline", "serve") for file in (ROOT / package).rglob("*.py")]
    readers = {file.name for file in files if reading.search(file.read_text())}
    assert readers == {"environment.py"}
