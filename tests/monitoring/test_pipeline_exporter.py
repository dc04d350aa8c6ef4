"""What the exporter says of a registry and of reports, and of what is not there."""

import json
import os
import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.bundles import write_bundle
from support.mlflow_registry import Registry

from monitoring.pipeline_exporter import PipelineCollector

COMPARISON = {
    "best": 2,
    "runs": {
        "1": {"test_accuracy": 0.98, "val_accuracy": 0.97},
        "2": {"test_accuracy": 0.99, "val_accuracy": 0.985},
    },
}


def scraped(reports, uri):
    """Values by name and labels, as a scrape gives them."""
    registry = CollectorRegistry()
    registry.register(PipelineCollector(reports, uri))
    return {
        (sample.name.removeprefix("pipeline_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


@pytest.fixture
def reports(tmp_path):
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "comparison.json").write_text(json.dumps(COMPARISON))
    (folder / "timings.json").touch()
    os.utime(folder / "timings.json", (1767409445, 1767409445))
    return folder


def test_without_anything_it_says_so(tmp_path):
    found = scraped(tmp_path / "nowhere", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert found == {("registry_up",): 0}
    assert not (tmp_path / "mlflow.db").exists()


def test_reports_alone_have_accuracies_and_a_date(reports, tmp_path):
    found = scraped(reports, f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert found == {
        ("last_run_timestamp_seconds",): 1767409445,
        ("test_accuracy", "1"): 0.98,
        ("test_accuracy", "2"): 0.99,
        ("validation_accuracy", "1"): 0.97,
        ("validation_accuracy", "2"): 0.985,
        ("registry_up",): 0,
    }


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"runs": {"1": {}}}', b"\xff\xfe"])
def test_half_a_file_stops_nothing(reports, tmp_path, content):
    (reports / "comparison.json").write_bytes(content)
    (reports / "timings.json").unlink()
    assert scraped(reports, f"sqlite:///{tmp_path / 'mlflow.db'}") == {("registry_up",): 0}


def test_an_odd_tag_leaves_out_that_version_alone(reports, tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "a").as_uri())
    bundle = write_bundle(tmp_path / "bundle", b"model")
    first = registry.register(bundle, test_accuracy="0.98")
    registry.register(bundle, test_accuracy="n/a")
    found = scraped(reports, registry.uri)
    assert {key[1:]: v for key, v in found.items() if key[0] == "version_accuracy"} == {
        (first,): 0.98
    }


def test_reports_are_exported_although_the_registry_does_not_answer(reports, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found = scraped(reports, "http://127.0.0.1:9")
    assert found["registry_up",] == 0
    assert found["test_accuracy", "2"] == 0.99


def test_versions_aliases_and_the_gates_of_the_newest(reports, tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "a").as_uri())
    bundle = write_bundle(tmp_path / "bundle", b"model")
    began = time.time() - 1
    first = registry.register(bundle, test_accuracy="0.98", **{"gate.recall": "passed: 0.97"})
    second = registry.register(
        bundle,
        test_accuracy="0.985",
        feedback_accuracy="0.893",
        **{"gate.recall": "passed: 0.98", "gate.test_accuracy": "failed: 0.985, 0.99 wanted"},
    )
    third = registry.register(bundle)  # by hand, with nothing known of it
    registry.promote(first)
    found = scraped(reports, registry.uri)
    assert found["registry_up",] == 1
    assert began < found["last_run_timestamp_seconds",] < time.time() + 1
    assert {key[1:]: v for key, v in found.items() if key[0] == "version_accuracy"} == {
        (first,): 0.98,
        (second,): 0.985,
    }
    assert [key for key in found if key[0] == "version_feedback_accuracy"] == [
        ("version_feedback_accuracy", second)
    ]
    assert found["version_feedback_accuracy", second] == 0.893
    assert found["alias", "champion", first] == 1
    assert ("alias", "champion", third) not in found
    assert (found["gate_passed", "recall"], found["gate_passed", "test_accuracy"]) == (1, 0)


def test_a_promotion_is_later_than_the_run_that_it_promotes(reports, tmp_path):
    registry = Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "a").as_uri())
    bundle = write_bundle(tmp_path / "bundle", b"model")
    registry.register(bundle, promoted_at="2100-01-03T03:04:05.000+00:00")
    registry.register(bundle, promoted_at="by hand")
    assert scraped(reports, registry.uri)["last_run_timestamp_seconds",] == 4102628645


def test_each_scrape_reads_anew(reports, tmp_path):
    registry = CollectorRegistry()
    registry.register(PipelineCollector(reports, f"sqlite:///{tmp_path / 'mlflow.db'}"))
    assert b'pipeline_test_accuracy{run="2"} 0.99\n' in generate_latest(registry)
    (reports / "comparison.json").write_text('{"runs": {"2": {"test_accuracy": 0.995}}}')
    assert b'pipeline_test_accuracy{run="2"} 0.995\n' in generate_latest(registry)
